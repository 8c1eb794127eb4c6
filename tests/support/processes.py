"""Functions in several real processes that can train together, as torchrun starts them (gloo on CPU).

They are forked from a server that has imported the heavy libraries once.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable

import torch
import torch.distributed as dist

PRELOADED = [
    "tests.support.processes",
    "training.finetuning.models",
    "training.finetuning.trainer",
    "tvtsv2.reading.segment_reading",
]


def start_processes(number: int, function: Callable, *arguments) -> list[multiprocessing.Process]:
    """Returns running processes, in order of rank, each of which calls `function(*arguments)`; all can be pickled."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_work, args=(rank, number, port, function, arguments)) for rank in range(number)
    ]
    for process in processes:
        process.start()
    return processes


def _work(rank: int, number: int, port: int, function: Callable, arguments: tuple) -> None:
    torch.set_num_threads(1)
    # As under torchrun; from a server of their own, loading workers would import everything anew in each epoch.
    multiprocessing.set_start_method("fork", force=True)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), LOCAL_WORLD_SIZE=str(number))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    function(*arguments)
    if dist.is_initialized():
        dist.destroy_process_group()


def exit_codes(processes: list[multiprocessing.Process], timeout_seconds: float) -> list[int]:
    """Returns how the processes ended; one that took longer was killed."""
    for process in processes:
        process.join(timeout_seconds)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
