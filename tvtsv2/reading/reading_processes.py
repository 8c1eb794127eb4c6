"""Processes that read files for this one: a decoder that crashes takes its own process along, and costs one file."""

import multiprocessing
import multiprocessing.context
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import torch

PRELOADED = ["tvtsv2.reading.segment_reading"]  # by the forkserver, so that workers start quickly


def prepare() -> None:
    """Starts what takes seconds, the imports of the processes, while this process goes on."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        from multiprocessing import forkserver

        _context()
        forkserver.ensure_running()


def _context() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # Forked from a server of its own, which has no threads and no GPU that a fork would break.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


class ReadingFailed(Exception):
    """A file that could not be read; the message is the reason."""


class ReadingProcesses:
    """A pool of processes, each with one call at a time; a context manager that ends them.

    Args:
        reader: goes to each process once, as the first argument of every call; can be pickled.
        num_processes: calls that run at the same time.
    """

    def __init__(self, reader: Any, num_processes: int):
        self.idle: SimpleQueue[_ReadingProcess] = SimpleQueue()
        self.processes = [_ReadingProcess(reader) for _ in range(num_processes)]
        for process in self.processes:
            self.idle.put(process)
        # A thread a process hands calls over and takes results in while the model computes.
        self.threads = ThreadPoolExecutor(num_processes)

    def __enter__(self) -> "ReadingProcesses":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.threads.shutdown(cancel_futures=True)
        for process in self.processes:
            process.end()

    def submit(self, function: Callable, *arguments) -> Future:
        """Returns the future result of `function(reader, *arguments)`; all of it can be pickled.

        The future raises `ReadingFailed` for whatever `function` raises, and if its process dies.
        """
        return self.threads.submit(self._call, function, arguments)

    def _call(self, function: Callable, arguments: tuple) -> Any:
        process = self.idle.get()
        try:
            return process.call(function, arguments)
        finally:
            self.idle.put(process)


class _ReadingProcess:
    """One process; it is started when it is needed, and anew after its death."""

    # One process is started or laid to rest at a time: multiprocessing looks through all children then.
    lock = threading.Lock()

    def __init__(self, reader: Any):
        self.reader = reader
        self.process = self.connection = None

    def call(self, function: Callable, arguments: tuple) -> Any:
        if self.process is not None and not self.process.is_alive():
            self.end()  # killed by somebody while it had nothing to do: no file is to blame
        if self.process is None:
            self._start()
        try:
            self.connection.send((function, arguments))
            succeeded, result = self.connection.recv()
        except (EOFError, ConnectionError):
            raise ReadingFailed(f"reading it killed the reading process ({self.end()})") from None
        if not succeeded:
            raise ReadingFailed(result)
        return result

    def _start(self) -> None:
        context = _context()
        self.connection, theirs = context.Pipe()
        with self.lock:
            self.process = context.Process(target=_serve, args=(theirs, self.reader), daemon=True)
            self.process.start()
        theirs.close()  # theirs alone: it closes with the process, and that is how its death is noticed

    def end(self) -> str | None:
        """Ends the process and returns how it ended: a signal's name, or its exit code."""
        if self.process is None:
            return None
        self.connection.close()
        with self.lock:
            self.process.join()
        code, self.process = self.process.exitcode, None
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(connection, reader: Any) -> None:
    """Answers calls until the other end is closed, also by the death of its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that decides
    torch.set_num_threads(1)
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer = True, function(reader, *arguments)
        except ValueError as error:  # the reader's own errors are, and name file and cause
            answer = False, str(error)
        except Exception as error:  # whatever it is, it is this file's, and must not cost another
            answer = False, f"{type(error).__name__}: {error}"
        try:
            connection.send(answer)
        except ConnectionError:
            return
