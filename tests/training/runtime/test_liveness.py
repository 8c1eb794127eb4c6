"""A loading worker that is dead or stuck ends the run soon, with a message; with real signals."""

import multiprocessing
import os
import signal

import pytest
from transformers import Trainer

from tests.support.trainer_runs import make_samples, train
from training.runtime.liveness import DataLoadingError, loading_errors_explained

LONG = 100_000  # steps; left alone, such a run would take hours


class Samples(list):
    """Whoever reads the sixth sample is sent a signal."""

    signal = None

    def __getitem__(self, index):
        if index == 5:
            os.kill(os.getpid(), self.signal)
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGSTOP, r"timed out after 2.* seconds.*--dataloader_timeout=2 seconds, raise it"),
        (signal.SIGKILL, r"DataLoader worker \(pid.* (killed by signal|exited unexpectedly).*too little memory"),
    ],
)
@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_worker_that_is_dead_or_stuck_ends_the_run(tmp_path, number, message, is_resumed):
    samples = Samples(make_samples(8))
    samples.signal = number
    settings = {"max_steps": LONG, "dataloader_num_workers": 1, "dataloader_timeout": 2.0}
    if is_resumed:  # accelerate then makes another loader, which skips what was seen
        samples.signal = 0
        train(tmp_path, samples, **settings | {"max_steps": 1, "save_strategy": "steps", "save_steps": 1})
        samples.signal = number
        settings["resume_from"] = str(tmp_path / "checkpoint-1")
    with pytest.raises(DataLoadingError, match=message), loading_errors_explained(2.0):
        train(tmp_path, samples, **settings)
    assert not multiprocessing.active_children()  # a stopped one would keep this process from ending


def test_a_worker_s_death_is_no_failed_checkpoint(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(Trainer, "_save_checkpoint", fail)
    with pytest.raises(DataLoadingError, match="is killed by signal"), loading_errors_explained(2.0):
        train(tmp_path, make_samples(8), max_steps=1, save_strategy="steps", save_steps=1)


def test_a_worker_that_stops_after_it_announced_a_batch_is_killed():
    """torch then waits for the batch's memory without limit."""
    context = multiprocessing.get_context("fork")
    read_end, write_end = context.Pipe(duplex=False)
    worker = context.Process(target=lambda: os.kill(os.getpid(), signal.SIGSTOP), daemon=True)
    with loading_errors_explained(0.2):
        worker.start()
        write_end.close()
        with pytest.raises(EOFError):
            read_end.recv()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape mismatch") as error, loading_errors_explained(1):
        raise RuntimeError("shape mismatch")
    assert not isinstance(error.value, DataLoadingError)


def test_evaluation_does_not_wait_for_ever_either(tmp_path):
    samples = Samples(make_samples(8))
    samples.signal = signal.SIGSTOP
    settings = {"eval_strategy": "steps", "eval_steps": 1, "dataloader_num_workers": 1, "dataloader_timeout": 2.0}
    with pytest.raises(DataLoadingError, match=r"timed out"), loading_errors_explained(2.0):
        train(tmp_path, make_samples(8), eval_dataset=samples, max_steps=2, **settings)
