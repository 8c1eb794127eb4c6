"""The command of the study: every comparison at its smallest, runs that are done, resumed or broken off."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

import benchmarks.study.__main__ as study_main
from benchmarks.study.comparisons import COMPARISONS
from benchmarks.study.runs import Run, StudyFolder
from benchmarks.study.sentences import STYLES
from benchmarks.study.settings import Arm, read_study
from tests.benchmarks.study.conftest import SEED, SMALLEST


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The whole smallest study, run by its command."""
    folder = tmp_path_factory.mktemp("study")
    run_again(folder)
    return folder


def run_again(done: Path, *options: str) -> None:
    study_main.main(["--config", str(SMALLEST), "--folder", str(done), "--records", str(done / "records"), *options])


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparison_has_every_number_of_its_tables_with_an_interval(name, done):
    record = json.loads((done / "records" / f"{name}.json").read_text())
    assert record["state"] == "complete"
    assert (done / "records" / f"{name}.png").stat().st_size > 5000
    last_arm = list(record["summary"])[-1]
    for columns in COMPARISONS[name].tables.values():
        for _, number in columns:
            assert record["summary"][last_arm][number]["seeds"] == 2, number
            assert record["summary"][last_arm][number]["half_width"] is not None
    assert str(done) not in json.dumps(record)


def test_tables_show_what_runs_hold(done):
    runs = [json.loads(file.read_text()) for file in (done / "runs" / "language").glob("full-*.json")]
    mean = np.mean([run["metrics"]["retrieval/asr"] for run in runs])
    row = re.search(r"^\| full \| ([\d.]+) ± ", (done / "records" / "language.md").read_text(), re.MULTILINE)
    assert float(row[1]) == pytest.approx(mean, abs=0.051)


def test_the_start_has_not_drifted_and_training_has(done):
    metrics = {
        name: json.loads(next((done / "runs" / "language").glob(f"{name}-seed0-*.json")).read_text())["metrics"]
        for name in ("start", "full")
    }
    for style in STYLES:
        assert metrics["start"][f"cosine/{style}"] == pytest.approx(1, abs=1e-6)
        assert metrics["start"][f"neighbors/{style}"] == 1
        assert metrics["full"][f"cosine/{style}"] < 0.9999


def test_a_lost_run_is_repeated_to_the_same_numbers_and_no_other_is(done):
    files = sorted((done / "runs").rglob("*.json"))
    before = {file: (file.read_text(), file.stat().st_mtime_ns) for file in files}
    lost = next(file for file in files if file.name.startswith("sorting-seed1"))
    lost.unlink()
    run_again(done, "--only", "sorting")
    assert json.loads(lost.read_text())["metrics"] == json.loads(before[lost][0])["metrics"]
    assert all(file.stat().st_mtime_ns == before[file][1] for file in files if file != lost)


def test_a_run_without_time_begins_nothing_and_says_partial(done):
    lost = next((done / "runs" / "sorting").glob("sorting-seed1*.json"))
    content = lost.read_text()
    lost.unlink()
    run_again(done, "--only", "sorting", "--seconds", "0")
    record = json.loads((done / "records" / "sorting.json").read_text())
    lost.write_text(content)
    run_again(done, "--only", "sorting")
    assert (record["state"], record["runs_done"], record["runs_planned"]) == ("partial", 3, 4)
    assert record["summary"]["sorting"]["order"]["half_width"] is None  # one seed has no interval


def test_a_run_that_breaks_off_leaves_nothing(study_folder, monkeypatch):
    def break_off(study_folder, seed, arm):
        raise KeyboardInterrupt

    run = Run("language", Arm("never done"), SEED)
    monkeypatch.setitem(study_main.EVALUATIONS, "language", break_off)
    before = sorted(study_folder.folder.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        study_main.execute_run(run, study_folder, study_main.EVALUATIONS["language"])
    assert sorted(study_folder.folder.rglob("*")) == before


def test_another_setting_is_another_run(study_folder):
    run = Run("language", Arm("full"), SEED)
    files = {study_folder.run_file(run)}
    for change in ({"mask_ratio": 0.4}, {"num_tuned_blocks": 2}, {"sorts": False}):
        files.add(study_folder.run_file(Run("language", dataclasses.replace(run.arm, **change), SEED)))
    files.add(study_folder.run_file(Run("language", run.arm, 1)))
    longer = dataclasses.replace(study_folder.study.claims["language"], num_steps=3)
    study = dataclasses.replace(study_folder.study, claims=study_folder.study.claims | {"language": longer})
    files.add(StudyFolder(study, study_folder.folder).run_file(run))
    assert len(files) == 6


def test_the_time_study_has_one_run_per_arm_and_seed():
    runs = study_main.list_runs(read_study(SMALLEST.with_name("time.yaml")), "sorting")
    assert len(runs) == len({(run.arm.name, run.seed) for run in runs}) == 13 * 8
    assert all(run.arm.sources == ["narrated"] for run in runs)


def test_a_comparison_that_the_study_has_not_is_named(tmp_path):
    file = tmp_path / "study.yaml"
    content = yaml.safe_load(SMALLEST.read_text())
    del content["claims"]["masking"]
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(SystemExit, match="no comparison 'masking'"):
        study_main.main(["--config", str(file), "--folder", str(tmp_path), "--only", "masking"])
