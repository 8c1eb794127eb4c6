"""The output folder: whose it is, whether it can be continued, and what it holds."""

import json

import pytest
import torch
from safetensors.torch import save_file

from training.runtime.run_folder import LAST_SAVE_FILE, RESULTS_FILE, RUN_FILE, RunFolder, write_json

SETTINGS = {"seed": 1, "learning_rate": 1e-3, "sources": [{"format": "webvid"}], "dataloader_num_workers": 2}


@pytest.fixture
def folder(tmp_path):
    """A folder that holds the run of SETTINGS."""
    RunFolder(tmp_path / "run", SETTINGS).claim()
    return tmp_path / "run"


def write_checkpoint(folder):
    """Write the files that Trainer writes in one process."""
    folder.mkdir()
    save_file({"weight": torch.zeros(64)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.zeros(64)}, folder / name)
    step = folder.name.rpartition("-")[2]
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": int(step) if step.isdigit() else 1}))


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
        "checkpoint-13",
        "checkpoint-best",
        "checkpoint-99x",
    ):
        write_checkpoint(folder / name)
        if name == "checkpoint-12":  # killed before the last file
            (folder / name / "trainer_state.json").unlink()
    (folder / "checkpoint-11" / "trainer_state.json").write_text('{"global_st')  # killed while writing it
    (folder / "checkpoint-13" / "trainer_state.json").write_text('{"global_step": 3}')  # of another step
    assert run.last_checkpoint() == str(folder / "checkpoint-10")


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "garbled"])
def test_an_incomplete_or_damaged_checkpoint_is_refused_by_name(folder, name, damage):
    write_checkpoint(folder / "checkpoint-1")
    write_checkpoint(folder / "checkpoint-2")
    path = folder / "checkpoint-2" / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "garbled": bytes(len(content))}.get(damage, b""))
    if damage == "gone":
        path.unlink()
    with pytest.raises(ValueError, match=rf"checkpoint-2.*{path.stem}") as error:
        RunFolder(folder, SETTINGS).last_checkpoint()
    assert len(str(error.value).splitlines()) == 1


def test_every_process_s_random_states_and_the_scaler_are_needed(folder):
    settings = {**SETTINGS, "num_processes": 2, "mixed_precision": "fp16"}
    (folder / RUN_FILE).unlink()
    RunFolder(folder, settings).claim()
    write_checkpoint(folder / "checkpoint-1")
    with pytest.raises(ValueError, match=r"lacks rng_state_0\.pth, rng_state_1\.pth, scaler\.pt"):
        RunFolder(folder, settings).last_checkpoint()


@pytest.mark.parametrize("name", [RUN_FILE, RESULTS_FILE, LAST_SAVE_FILE])
@pytest.mark.parametrize("content", [b"", b'{"seed": 1', b"[1, 2]", b"\xff\xfe"])
def test_a_damaged_record_of_the_run_is_an_error_in_one_line(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} (cannot be read|must hold a mapping)") as error:
        run = RunFolder(folder, SETTINGS)
        assert run.results is None and run.last_checkpoint()
    assert len(str(error.value).splitlines()) == 1


def test_files_are_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"step": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"step": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
