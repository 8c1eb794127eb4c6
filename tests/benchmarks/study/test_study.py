"""The command of the study at its smallest: runs that are done, resumed or broken off."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

import benchmarks.study.__main__ as study_main
from benchmarks.study import runs
from benchmarks.study.records import TABLES
from benchmarks.study.runs import Run, StudyFolder
from benchmarks.study.settings import Arm, read_study
from tests.benchmarks.study.conftest import SEED, SMALLEST


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The whole smallest study, run by its command; its linear probes, whose numbers say nothing, are soon given up."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.linear_classifier.MAX_ITERATIONS", 5)
        run_again(folder)
        yield folder


def run_again(done: Path, *options: str) -> None:
    study_main.main(["--config", str(SMALLEST), "--folder", str(done), "--records", str(done / "records"), *options])


def test_record_has_every_number_of_its_tables_with_an_interval(done):
    record = json.loads((done / "records" / "sorting.json").read_text())
    assert record["state"] == "complete"
    assert (done / "records" / "sorting.png").stat().st_size > 5000
    last_arm = list(record["summary"])[-1]
    for columns in TABLES.values():
        for _, number in columns:
            assert record["summary"][last_arm][number]["seeds"] == 2, number
            assert record["summary"][last_arm][number]["half_width"] is not None
    assert str(done) not in json.dumps(record)


def test_tables_show_what_runs_hold(done):
    results = [json.loads(file.read_text()) for file in (done / "runs" / "sorting").glob("sorting-*.json")]
    mean = np.mean([result["metrics"]["order"] for result in results])
    row = re.search(r"^\| sorting \| ([\d.]+) ± ", (done / "records" / "sorting.md").read_text(), re.MULTILINE)
    assert float(row[1]) == pytest.approx(mean, abs=0.051)


def test_a_lost_run_is_repeated_to_the_same_numbers_and_no_other_is(done):
    files = sorted((done / "runs").rglob("*.json"))
    before = {file: (file.read_text(), file.stat().st_mtime_ns) for file in files}
    lost = next(file for file in files if file.name.startswith("sorting-seed1"))
    lost.unlink()
    run_again(done, "--arms", "sorting", "--seeds", "1")
    assert json.loads(lost.read_text())["metrics"] == json.loads(before[lost][0])["metrics"]
    assert all(file.stat().st_mtime_ns == before[file][1] for file in files if file != lost)


def test_a_run_without_time_begins_nothing_and_says_partial(done):
    lost = next((done / "runs" / "sorting").glob("sorting-seed1*.json"))
    content = lost.read_text()
    lost.unlink()
    run_again(done, "--seconds", "0")
    record = json.loads((done / "records" / "sorting.json").read_text())
    lost.write_text(content)
    run_again(done)
    assert (record["state"], record["runs_done"], record["runs_planned"]) == ("partial", 3, 4)
    assert record["summary"]["sorting"]["order"]["half_width"] is None  # one seed has no interval


def test_a_run_that_breaks_off_leaves_nothing(study_folder, monkeypatch):
    def break_off(study_folder, seed, arm):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "evaluate_arm", break_off)
    before = sorted(study_folder.folder.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        runs.execute_run(Run(Arm("never done"), SEED), study_folder)
    assert sorted(study_folder.folder.rglob("*")) == before


def test_another_setting_is_another_run(study_folder):
    run = Run(Arm("full"), SEED)
    files = {study_folder.run_file(run)}
    for change in ({"mask_ratio": 0.4}, {"num_tuned_blocks": 2}, {"sorts": False}):
        files.add(study_folder.run_file(Run(dataclasses.replace(run.arm, **change), SEED)))
    files.add(study_folder.run_file(Run(run.arm, 1)))
    study = dataclasses.replace(study_folder.study, num_steps=3)
    files.add(StudyFolder(study, study_folder.folder).run_file(run))
    assert len(files) == 6


def test_the_time_study_has_one_run_per_arm_and_seed_in_the_files_of_its_first_runs(tmp_path):
    study = read_study(study_main.CONFIG)
    planned = study_main.list_runs(study)
    assert len(planned) == len({(run.arm.name, run.seed) for run in planned}) == 13 * 8
    assert all(run.arm.sources == ["narrated"] for run in planned)
    file = StudyFolder(study, tmp_path).run_file(planned[0])
    assert file == tmp_path / "runs" / "sorting" / "contrastive-seed10-0b7b0f6123.json"  # another name: all run again


@pytest.mark.parametrize("option, value", [("--arms", "unknown"), ("--seeds", "7")])
def test_arms_and_seeds_that_the_study_has_not_are_named(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit):
        study_main.main(["--config", str(SMALLEST), "--folder", str(tmp_path), option, value])
    assert f"{option} must be some of" in capsys.readouterr().err
