"""Processes that read video files: a decoder that crashes or hangs ends its own process and costs one file."""

import copy
import multiprocessing
import signal
import weakref
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Any

import torch
from pebble import ProcessExpired, ProcessPool

from processing import reader_tvtsv2
from processing.worker_processes import worker_context

PRELOADED = ["tvtsv2.reading.segment_reading"]  # by the forkserver, so that workers start quickly
# Above `VideoLimits.max_decode_seconds`, which the reader itself checks between packets.
MAX_SECONDS_PER_READ = 1200.0

_reader: Any = None  # in a reading process: the first argument of every call


def prepare() -> None:
    """Start the forkserver, whose imports take seconds, while this process goes on."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        worker_context(*PRELOADED)
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as it inherits it: Ctrl-C is for this process
        forkserver.ensure_running()
        signal.signal(signal.SIGINT, handler)


class ReadingFailed(Exception):
    """A file that could not be read; the message is the reason."""


class ReadingProcesses:
    """A pool of processes that run one call each; a context manager that ends them.

    Args:
        reader: the first argument of every call; pickled once per process.
        num_processes: calls that run at the same time.
    """

    def __init__(self, reader: Any, num_processes: int):
        self._processes: weakref.WeakSet = weakref.WeakSet()  # those of this pool
        context: Any = copy.copy(worker_context(*PRELOADED))
        new_process = context.Process

        def note_process(**options):
            process = new_process(**options)
            self._processes.add(process)
            return process

        context.Process = note_process
        self._pool = ProcessPool(num_processes, initializer=_start, initargs=[reader], context=context)

    def __enter__(self) -> "ReadingProcesses":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self._pool.stop()
        # The pool removes its locks before it ends its processes; one that is still starting would report them missing.
        for process in self._processes.intersection(multiprocessing.active_children()):
            process.kill()
        self._pool.join()

    def submit(self, function: Callable, *arguments) -> Future:
        """Return the future of `function(reader, *arguments)`; see `result_of`."""
        return self._pool.schedule(_call, args=[function, arguments], timeout=MAX_SECONDS_PER_READ)


def result_of(future: Future) -> Any:
    """Return what a submitted call returned.

    Raises:
        ReadingFailed: the call raised an error, took longer than `MAX_SECONDS_PER_READ`, or its process died.
    """
    try:
        is_result, value = future.result()
    except ProcessExpired as error:
        code = error.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise ReadingFailed(f"reading it killed the reading process ({cause})") from None
    except TimeoutError:
        raise ReadingFailed(f"reading it took longer than {MAX_SECONDS_PER_READ:g} s") from None
    if not is_result:
        raise ReadingFailed(value)
    return value


def _start(reader: Any) -> None:
    """Prepare a reading process."""
    global _reader
    _reader = reader
    torch.set_num_threads(1)
    reader_tvtsv2.MAX_THREADS = 1  # the processes share the cores


def _call(function: Callable, arguments: list) -> tuple[bool, Any]:
    """Return whether the call returned, and its result or the reason: not every error can be pickled."""
    try:
        return True, function(_reader, *arguments)
    except ValueError as error:  # the reader's own errors name file and cause
        return False, str(error)
    except Exception as error:  # any other belongs to this file, too, and must not cost another
        return False, f"{type(error).__name__}: {error}"
