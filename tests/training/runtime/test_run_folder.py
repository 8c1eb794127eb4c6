"""The output folder: whose it is, whether it can be continued, and what it holds."""

import json

import pytest

from training.runtime.run_folder import RESULTS_FILE, RUN_FILE, RunFolder, write_json

SETTINGS = {"seed": 1, "learning_rate": 1e-3, "sources": [{"format": "webvid"}], "dataloader_num_workers": 2}


@pytest.fixture
def folder(tmp_path):
    """A folder that holds the run of SETTINGS."""
    RunFolder(tmp_path / "run", SETTINGS).claim()
    return tmp_path / "run"


def test_a_new_and_an_empty_folder_are_free(tmp_path):
    run = RunFolder(tmp_path / "a" / "b", SETTINGS)
    assert not run.path.exists()  # looking does not make it
    run.claim()
    assert (run.path / RUN_FILE).is_file()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty", SETTINGS)


def test_the_same_run_may_go_on(folder):
    RunFolder(folder, dict(SETTINGS))
    RunFolder(folder, {**SETTINGS, "dataloader_num_workers": 8})  # how it is run, not what


def test_another_run_is_refused_with_what_differs(folder):
    changed = {**SETTINGS, "seed": 2, "sources": [{"format": "webvid", "weight": 3}], "mask_ratio": 0.5}
    with pytest.raises(ValueError, match=r"holds another run") as error:
        RunFolder(folder, changed)
    message = str(error.value)
    assert "seed: 1 there, 2 now" in message
    assert "sources: [{'format': 'webvid'}] there, [{'format': 'webvid', 'weight': 3}] now" in message
    assert "mask_ratio: None there, 0.5 now" in message
    assert "learning_rate" not in message and "--output_dir" in message


def test_a_setting_that_is_gone_is_a_difference(folder):
    with pytest.raises(ValueError, match=r"seed: 1 there, None now"):
        RunFolder(folder, {name: value for name, value in SETTINGS.items() if name != "seed"})


def test_foreign_folders_and_files_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"not empty and holds no run"):
        RunFolder(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=r"holds no run"):
        RunFolder(tmp_path / "thesis.txt", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_results_of_a_finished_run(folder):
    assert RunFolder(folder, SETTINGS).results is None
    write_json(folder / RESULTS_FILE, {"sorting_accuracy": 0.9})
    assert RunFolder(folder, SETTINGS).results == {"sorting_accuracy": 0.9}


def test_the_newest_complete_checkpoint_is_picked(folder):
    run = RunFolder(folder, SETTINGS)
    assert run.last_checkpoint() is None
    for name in (
        "checkpoint-9",
        "checkpoint-10",
        "checkpoint-11",
        "checkpoint-12",
        "checkpoint-best",
        "checkpoint-99x",
    ):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").write_bytes(b"weights")
        if name != "checkpoint-12":  # killed before the last file
            (folder / name / "trainer_state.json").write_text('{"global_step": 1}')
    (folder / "checkpoint-11" / "trainer_state.json").write_text('{"global_st')  # killed while writing it
    assert run.last_checkpoint() == str(folder / "checkpoint-10")


def test_files_are_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"step": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"step": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
