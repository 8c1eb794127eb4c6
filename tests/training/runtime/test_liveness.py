"""A loading worker or a process that is dead or stuck ends the run soon, with a message; with real signals."""

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from transformers import Trainer, TrainerCallback

from tests.support.paths import ROOT
from tests.training.test_trainer import make_samples, train
from training.runtime.liveness import EXIT_CODE, DataLoadingError, _kill_if_here, _own_address, loading_errors_explained

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
    with pytest.raises(DataLoadingError, match=message):
        train(tmp_path, samples, **settings)
    assert not multiprocessing.active_children()  # a stopped one would keep this process from ending


class StopWorkers(TrainerCallback):
    """After the first step, when they have announced their next batches, the loading workers are stopped."""

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(1)
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGSTOP)


def test_a_stopped_worker_whose_batch_cannot_be_fetched_ends_the_run(tmp_path, capsys):
    settings = {"max_steps": LONG, "dataloader_num_workers": 1, "heartbeat_seconds": 1.0}
    with pytest.raises(DataLoadingError, match="DataLoader worker"):
        train(tmp_path, make_samples(16), callbacks=[StopWorkers()], **settings)
    assert "has been stopped for 1 s, and is killed" in capsys.readouterr().err
    assert not multiprocessing.active_children()


def test_a_worker_s_death_is_no_failed_checkpoint(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    monkeypatch.setattr(Trainer, "_save_checkpoint", fail)
    with pytest.raises(DataLoadingError, match="is killed by signal"):
        train(tmp_path, make_samples(8), max_steps=1, save_strategy="steps", save_steps=1)


def test_only_the_very_process_is_killed():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    host, pid, created = _own_address().replace(str(os.getpid()), str(process.pid)).rsplit(" ", 2)
    created = psutil.Process(process.pid).create_time()
    _kill_if_here(f"{host}-elsewhere {pid} {created}")
    _kill_if_here(f"{host} {pid} {created - 60}")
    _kill_if_here(f"{host} {2**22 + 1} {created}")  # beyond the largest number of a process
    assert process.poll() is None
    _kill_if_here(f"{host} {pid} {created}")
    assert process.wait(10) == -signal.SIGKILL


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape mismatch") as error, loading_errors_explained(1):
        raise RuntimeError("shape mismatch")
    assert not isinstance(error.value, DataLoadingError)


def test_evaluation_does_not_wait_for_ever_either(tmp_path):
    samples = Samples(make_samples(8))
    samples.signal = signal.SIGSTOP
    settings = {"eval_strategy": "steps", "eval_steps": 1, "dataloader_num_workers": 1, "dataloader_timeout": 2.0}
    with pytest.raises(DataLoadingError, match=r"timed out"):
        train(tmp_path, make_samples(8), eval_dataset=samples, max_steps=2, **settings)


class Signalled(TrainerCallback):
    """In the third step one process sends itself a signal."""

    def __init__(self, folder: Path, number: int, victim: int, delay_seconds: float):
        self.folder, self.number, self.victim, self.delay_seconds = folder, number, victim, delay_seconds

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            (self.folder / str(args.process_index)).write_text(f"{args.world_size} {os.getpid()}")
            if args.process_index == self.victim:
                time.sleep(self.delay_seconds)
                os.kill(os.getpid(), self.number)


def signalled_run(folder: str, number: str, victim: str, limit_seconds: str, delay_seconds: str) -> None:
    """What each process of `processes` does."""
    torch.set_num_threads(1)
    callback = Signalled(Path(folder), int(number), int(victim), float(delay_seconds))
    settings = {"max_steps": LONG, "per_device_train_batch_size": 2, "heartbeat_seconds": float(limit_seconds)}
    train(Path(folder) / "run", make_samples(8), callbacks=[callback], **settings)


@pytest.fixture
def processes(tmp_path):
    """Starts W processes of one run, without a launcher that would look after them."""
    started = []

    def start(
        num_processes: int, number: int, victim: int, limit_seconds: float, delay_seconds: float = 0
    ) -> list[subprocess.Popen]:
        arguments = [str(tmp_path), str(int(number)), str(victim), str(limit_seconds), str(delay_seconds)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(num_processes)}
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for rank in map(str, range(num_processes)):
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.training.runtime.test_liveness", *arguments],
                    env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
                    cwd=ROOT,
                    stderr=(tmp_path / f"{rank}.log").open("wb"),
                )
            )
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


# With 5 s, the third step is over before the first check. The first process holds the store; once the others have
# checked, they know whom to kill.
@pytest.mark.parametrize(("victim", "limit_seconds", "delay_seconds"), [(2, 5, 0), (0, 2, 2)])
def test_a_stuck_process_ends_all_others(tmp_path, processes, victim, limit_seconds, delay_seconds):
    started = processes(3, signal.SIGSTOP, victim, limit_seconds, delay_seconds)
    others = [rank for rank in range(3) if rank != victim]
    codes = {rank: started[rank].wait(90) for rank in others}
    assert EXIT_CODE in codes.values()
    assert started[victim].wait(10) == -signal.SIGKILL  # a launcher would have waited for it
    for rank, code in codes.items():
        assert (tmp_path / str(rank)).read_text().startswith("3 ")  # there were three
        said = (tmp_path / f"{rank}.log").read_text()
        if code == EXIT_CODE:
            assert f"Process {rank} ends, as all others will" in said
            lost = rf"Process {victim} of 3 gave|first process or the launcher, gave|and with it the first process"
            assert re.search(rf"error: .*({lost})", said)
        else:  # it heard of it first from its broken connection to the one that was killed
            assert code == 1
            assert re.search(r"RuntimeError: .*(Connection reset|Connection closed|Broken pipe)", said)


def test_processes_that_end_in_peace_are_not_missed(tmp_path, processes):
    # Both go on for longer than the limit after training, in which no one beats any more.
    assert [process.wait(300) for process in processes(2, 0, 1, 2)] == [0, 0]


if __name__ == "__main__":
    if sys.argv[2] == "0":
        LONG = 4
        signalled_run(*sys.argv[1:])
        time.sleep(4)
    else:
        signalled_run(*sys.argv[1:])
