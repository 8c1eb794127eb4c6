"""Results of a function over many inputs from several processes, also when an input kills the process it is in."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

Input = TypeVar("Input")
Output = TypeVar("Output")

INPUTS_AHEAD = 4  # per process; more would only hold memory


def run_in_processes(
    function: Callable[[Input], Output],
    inputs: Iterable[Input],
    *,
    num_workers: int,
    on_death: Callable[[Input], Output],
) -> Iterator[Output]:
    """`function` of every input, in the order they get ready; in this process if `num_workers` is 1.

    Args:
        function, inputs: can be pickled; inputs are taken as they are needed.
        on_death: the output for an input whose process dies (a decoder's crash, no memory).
    """
    if num_workers == 1:
        yield from map(function, inputs)
        return
    inputs = iter(inputs)
    pending: list[Input] = []
    while True:
        executor, running = _start(num_workers), {}
        try:
            while pending or running or (pending := list(islice(inputs, INPUTS_AHEAD * num_workers))):
                while pending and len(running) < INPUTS_AHEAD * num_workers:
                    future = executor.submit(function, pending[-1])
                    running[future] = pending.pop()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    output = future.result()
                    del running[future]
                    pending += islice(inputs, 1)
                    yield output
            return
        except BrokenProcessPool:
            # Nobody knows which of the inputs under way it was: each gets a process of its own.
            suspects = list(running.values())
        finally:
            executor.shutdown(cancel_futures=True)
        for suspect in suspects:
            yield _run_alone(function, suspect, on_death)


def _run_alone(function: Callable[[Input], Output], value: Input, on_death: Callable[[Input], Output]) -> Output:
    with _start(1) as executor:
        try:
            return executor.submit(function, value).result()
        except BrokenProcessPool:
            return on_death(value)


def _start(num_workers: int) -> ProcessPoolExecutor:
    # spawn: the caller may hold threads (torch, tokenizers), which a forked child would find frozen
    return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
