"""Limits to waiting for the dead: a loading worker or a process that is gone ends the run, with a message.

A killed loading worker is noticed by torch at once, a killed process by its launcher; a stuck one by nobody. Waiting
for one another has a limit, but a long one: a large checkpoint is written meanwhile. Signs of life can be asked for
much more often, because they do not depend on the work.

Not every stuck one is noticed: with the default limits, a worker that was stopped (SIGSTOP), and a stopped process
under torchrun, had not ended the run after 120 seconds (benchmarks/records/dead_processes.json).
"""

import contextlib
import datetime
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator

import torch.distributed as dist

EXIT_CODE = 70  # "internal software error" of sysexits.h; told apart from a failure of this process's own


class DataLoadingError(RuntimeError):
    """A loading worker is dead, or gave no batch in time."""


@contextlib.contextmanager
def loading_errors_explained(timeout_seconds: float) -> Iterator[None]:
    """Within, what torch says about its loading workers becomes a `DataLoadingError`, and none of them is left over.

    A stopped worker would not even end with this process: it is sent a signal that it cannot receive, and waited for.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader "):  # the way all of torch's own messages about workers begin
            raise
        kill_loading_workers()
        raise DataLoadingError(
            f"{error} Nothing more was trained. A worker that was killed often had too little memory: fewer "
            "--dataloader_num_workers. If reading a batch may take a worker longer than "
            f"--dataloader_timeout={timeout_seconds:g} seconds, raise it. The same command goes on at the last "
            "checkpoint."
        ) from error


def kill_loading_workers() -> None:
    """Ends all daemonic children of this process at once, stopped ones too."""
    for child in multiprocessing.active_children():
        if child.daemon:
            # torch takes the end of a worker for an accident, and raises here.
            with contextlib.suppress(RuntimeError):
                child.kill()
                child.join(5)


class Heartbeat:
    """Signs of life between processes: one that gives none for a while ends all others, with a message.

    Within the context, a thread writes a number to the process group's store every few seconds, and looks at that of
    the next process. A process that leaves the context in peace is not missed any more. Contexts may be nested.
    Without other processes nothing happens.

    Args:
        limit_seconds: without a sign of life; 0: never mind.
    """

    def __init__(self, limit_seconds: float):
        self.limit_seconds = limit_seconds
        self.interval_seconds = min(2.0, limit_seconds / 5)
        self._depth = 0
        self._stopping, self._has_failed = threading.Event(), False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Heartbeat":
        self._depth += 1
        if self._depth == 1 and self.limit_seconds and dist.is_initialized() and dist.get_world_size() > 1:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._watch, args=(_own_store(),), name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self._depth -= 1
        if self._depth == 0 and self._thread is not None:
            # After an error it just falls silent, which is how the others learn of it.
            self._has_failed = error_type is not None
            self._stopping.set()
            self._thread.join(self.limit_seconds)
            self._thread = None

    def _watch(self, store: dist.Store) -> None:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        neighbour = (rank + 1) % world_size
        store.set_timeout(datetime.timedelta(seconds=self.limit_seconds))
        beat, seen, silent_seconds = 0, None, 0.0
        try:
            while not self._stopping.wait(self.interval_seconds):
                beat += 1
                store.set(f"{rank}", str(beat))
                if store.check(["lost"]):
                    _end_process(store.get("lost").decode())
                # One that has not started yet is not missed: it may still be loading.
                sign = store.get(f"{neighbour}") if store.check([f"{neighbour}"]) else b"ended"
                # Counted in own beats, so that a machine that slept does not blame the others.
                silent_seconds = silent_seconds + self.interval_seconds if sign == seen and sign != b"ended" else 0.0
                seen = sign
                if silent_seconds >= self.limit_seconds:
                    message = f"Process {neighbour} of {world_size} gave no sign of life for {silent_seconds:.0f} s"
                    store.set("lost", message)
                    _end_process(message)
            if not self._has_failed:
                store.set(f"{rank}", "ended")
        except RuntimeError as error:  # dist.DistError and its kin
            if not self._stopping.is_set():
                _end_process(f"The store that processes meet in is gone, and with it the first process: {error}")


def _own_store() -> dist.Store:
    # Its own connection: on the common one, a process that waits would keep its heartbeat waiting.
    return dist.PrefixStore("heartbeat", dist.distributed_c10d._get_default_store().clone())


def _end_process(message: str) -> None:
    """Ends this process at once: no exception reaches its main thread, which waits for the lost one in a library."""
    rank = dist.get_rank()
    print(
        f"error: {message}. Process {rank} ends, as all others will; the same command goes on at the last checkpoint. "
        "Raise --heartbeat_seconds if that process was only slow.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(EXIT_CODE)
