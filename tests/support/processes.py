"""Functions in real processes that can train together, as torchrun starts them (gloo on CPU).

They are forked from a server that has imported the heavy libraries once (tests/conftest.py).
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

PRELOADED = [
    "tests.support.distributed_steps",
    "training.run_pretrain",
    "training.finetuning.models",
    "training.finetuning.trainer",
    "tvtsv2.reading.segment_reading",
]


def start_processes(
    number: int, function: Callable, *arguments, log: Path | None = None
) -> list[multiprocessing.Process]:
    """Return running processes, in order of rank, each of which calls `function(*arguments)`; all can be pickled.

    Args:
        log: gets what the processes print, which then lead groups of their own (see `kill`).
    """
    context = multiprocessing.get_context("forkserver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_work, args=(rank, number, port, log, function, arguments)) for rank in range(number)
    ]
    for process in processes:
        process.start()
    return processes


def _work(rank: int, number: int, port: int, log: Path | None, function: Callable, arguments: tuple) -> None:
    import torch
    import torch.distributed as dist

    if log is not None:
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file, stream.fileno())
    torch.set_num_threads(1)
    # As under torchrun; from a server of their own, loading workers would import everything anew in each epoch.
    multiprocessing.set_start_method("fork", force=True)
    if number > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()


def wait_for_checkpoint(checkpoint: Path, processes: list[multiprocessing.Process], timeout_seconds: float) -> None:
    """Return as soon as a checkpoint's save has ended; a process that ended before is a failed test."""
    from training.runtime.checkpoint_files import is_complete

    end = time.monotonic() + timeout_seconds
    while not is_complete(checkpoint):
        assert all(process.exitcode is None for process in processes) and time.monotonic() < end
        time.sleep(0.005)


def exit_codes(processes: list[multiprocessing.Process], timeout_seconds: float) -> list[int]:
    """Return how the processes ended; one that took longer was killed."""
    for process in processes:
        process.join(timeout_seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]


def kill(process: multiprocessing.Process) -> None:
    """End a process that has a log, and its children, at once, as an operator's SIGKILL would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
