"""Checkpoints that were not finished, not writable or taken away; processes that die."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from tests.support.processes import exit_codes, start_processes
from tests.support.trainer_runs import make_samples, train
from training.runtime.run_folder import LAST_SAVE_FILE, CheckpointError, RunFolder

SAVING = {"save_strategy": "steps", "save_steps": 1}


def test_the_last_file_is_written_when_all_processes_have_written_theirs(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "accelerate.Accelerator.wait_for_everyone",
        lambda self: seen.append({path.name for path in (tmp_path / "checkpoint-1").glob("*")}),
    )
    train(tmp_path, make_samples(4), max_steps=1, **SAVING)
    files = next(names for names in seen if "rng_state.pth" in names)
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt"} <= files and "trainer_state.json" not in files
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").is_file()


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_a_clear_error_and_what_was_saved_stays(tmp_path, monkeypatch, error):
    def save(content, file, *args, real=torch.save, **kwargs):
        if "checkpoint-2" in str(file):
            raise error
        real(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(CheckpointError, match=r"checkpoint of step 2 could not be written to .* GiB free\).*Make room"):
        train(tmp_path, make_samples(8), max_steps=3, **SAVING)
    assert (tmp_path / "checkpoint-2").is_dir()
    (tmp_path / "run.json").write_text("{}")
    assert RunFolder(tmp_path, {}).last_checkpoint() == str(tmp_path / "checkpoint-1")


def test_a_checkpoint_that_was_taken_away_is_missed(tmp_path):
    train(tmp_path, make_samples(8), max_steps=2, **SAVING)
    (tmp_path / "run.json").write_text("{}")
    run = RunFolder(tmp_path, {})
    assert run.last_checkpoint() == str(tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2").rename(tmp_path.parent / "elsewhere")
    with pytest.raises(ValueError, match=r"had a checkpoint-2, which is gone or broken.*go on at checkpoint-1"):
        run.last_checkpoint()
    (tmp_path / LAST_SAVE_FILE).unlink()
    assert run.last_checkpoint() == str(tmp_path / "checkpoint-1")


def dying_run(folder: str) -> None:
    """Trains without end on two processes; the second kills itself in its third step."""
    from transformers import TrainerCallback

    class Dying(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            Path(folder, f"{args.process_index}").write_text(str(args.world_size))
            if args.process_index == 1 and state.global_step == 3:
                os.kill(os.getpid(), signal.SIGKILL)

    settings = {"max_steps": 100_000, "per_device_train_batch_size": 2, "ddp_find_unused_parameters": True}
    train(Path(folder) / "run", make_samples(8), callbacks=[Dying()], **settings)


def test_a_dead_process_ends_the_others(tmp_path):
    processes = start_processes(2, dying_run, str(tmp_path), log=tmp_path / "log")
    survivor, dead = exit_codes(processes, 120)  # left alone, it would train for hours
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["2", "2"]  # there were two
    assert dead == -signal.SIGKILL and survivor > 0
    assert re.search("Connection (closed|reset) by peer|remote worker|Broken pipe", (tmp_path / "log").read_text())
