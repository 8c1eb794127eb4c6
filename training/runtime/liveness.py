"""Limits to waiting for the dead: a loading worker or a process that is gone ends the run, with a message.

A killed loading worker is noticed by torch at once, a killed process by its launcher; one that is merely stuck or
stopped by nobody. Waiting for one another has a limit, but a long one: a large checkpoint is written meanwhile. Signs
of life can be asked for much more often, because they do not depend on the work. Whoever gives none is killed by those
on its own machine: then torch and the launcher know what to do.
"""

import contextlib
import datetime
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator

import psutil
import torch.distributed as dist

EXIT_CODE = 70  # "internal software error" of sysexits.h; told apart from a failure of this process's own
WORKER_NAME = "pt_data_worker"  # how torch calls its loading workers


class DataLoadingError(Exception):
    """A loading worker is dead, or gave no batch in time."""


@contextlib.contextmanager
def loading_errors_explained(timeout_seconds: float) -> Iterator[None]:
    """Within, what torch says about its loading workers becomes a `DataLoadingError`, and none of them is left over.

    torch says that a worker died wherever the main thread happens to be, not only where it waits for a batch. And a
    stopped worker would not even end with this process: it is sent a signal that it cannot receive, and waited for.
    """
    try:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            if not _came_while_fetching(error):
                raise
            time.sleep(1)  # torch's own error comes with the signal of the worker's end, mostly here
            raise RuntimeError("DataLoader worker died while a batch was fetched from it.") from error
    except RuntimeError as error:
        if not is_of_a_worker(error):
            raise
        kill_loading_workers()
        raise DataLoadingError(
            f"{error} Nothing more was trained. A worker that was killed often had too little memory: fewer "
            "--dataloader_num_workers. If reading a batch may take a worker longer than "
            f"--dataloader_timeout={timeout_seconds:g} seconds, raise it. The same command goes on at the last "
            "checkpoint."
        ) from error


def _came_while_fetching(error: Exception) -> bool:
    """Whether an error comes from taking over the memory of a worker's batch, and not from reading a data set."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "torch.multiprocessing.reductions" for frame in frames)


def is_of_a_worker(error: Exception) -> bool:
    """Whether an error is torch's word that a loading worker is dead or late."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")  # so all of these begin


def kill_loading_workers() -> None:
    """Ends all daemonic children of this process at once, stopped ones too."""
    for child in multiprocessing.active_children():
        if child.daemon:
            # torch takes the end of a worker for an accident, and raises here.
            with contextlib.suppress(RuntimeError):
                child.kill()
                child.join(5)


class Heartbeat:
    """Signs of life between processes and their loading workers: without any for a while, the run ends with a message.

    Within the context, a thread looks every few seconds at the loading workers of this process, and kills one that is
    stopped: a batch that it has announced cannot be fetched from it, and torch's own limit does not hold for that. With
    other processes, the thread also writes a number to the process group's store, and looks at that of the next
    process. A process that leaves the context in peace is not missed any more. Contexts may be nested.

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
        if self._depth == 1 and self.limit_seconds:
            self._stopping.clear()
            has_others = dist.is_initialized() and dist.get_world_size() > 1
            others = _Neighbour(self.limit_seconds, self.interval_seconds) if has_others else None
            self._thread = threading.Thread(target=self._watch, args=(others,), name="heartbeat", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, error_type, error, error_traceback) -> None:
        self._depth -= 1
        if self._depth == 0 and self._thread is not None:
            # After an error it just falls silent, which is how the others learn of it.
            self._has_failed = error_type is not None
            self._stopping.set()
            thread, self._thread = self._thread, None
            thread.join(self.limit_seconds)  # torch may speak up here about a worker that died

    def _watch(self, neighbour: "_Neighbour | None") -> None:
        stopped_seconds: dict[int, float] = {}  # by process id of a worker
        try:
            while not self._stopping.wait(self.interval_seconds):
                # Counted in own beats, so that a machine that slept blames no one.
                stopped = {worker.pid: worker for worker in stopped_workers()}
                stopped_seconds = {pid: stopped_seconds.get(pid, 0.0) + self.interval_seconds for pid in stopped}
                for pid, seconds in stopped_seconds.items():
                    if seconds >= self.limit_seconds:
                        _say(f"Loading worker {pid} has been stopped for {seconds:.0f} s, and is killed.")
                        _kill(stopped[pid])
                if neighbour is not None:
                    neighbour.check()
            if neighbour is not None and not self._has_failed:
                neighbour.say_goodbye()
        except RuntimeError as error:  # dist.DistError and its kin
            if not self._stopping.is_set():
                _end_process(f"The store that processes meet in is gone, and with it the first process: {error}")


def stopped_workers() -> list[psutil.Process]:
    """Returns those of this process's loading workers that a signal or a debugger has stopped."""
    stopped = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            # Not by multiprocessing's list of children: whoever asks it takes their end from under torch's eyes.
            is_stopped = child.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
            if is_stopped and child.name() == WORKER_NAME:
                stopped.append(child)
    return stopped


class _Neighbour:
    """The next process, whose signs of life this one looks for while giving its own."""

    def __init__(self, limit_seconds: float, interval_seconds: float):
        self.limit_seconds, self.interval_seconds = limit_seconds, interval_seconds
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.neighbour = (self.rank + 1) % self.world_size
        # Its own connection: on the common one, a process that waits would keep its heartbeat waiting.
        self.store = dist.PrefixStore("heartbeat", dist.distributed_c10d._get_default_store().clone())
        self.store.set_timeout(datetime.timedelta(seconds=limit_seconds))
        self.store.set(f"{self.rank}/address", _own_address())
        self.beat, self.seen, self.silent_seconds = 0, None, 0.0
        # The first sign comes at once: one that is stopped before it would be taken to be loading still, for ever.
        self.store.set(f"{self.rank}", str(self.beat))
        self.store_holder: str | None = None  # the address of the first process, where that holds the store

    def check(self) -> None:
        """Gives a sign of life, and ends this process if another one has gone without."""
        # The store's timeout does not hold for an answer from a process that is stopped.
        limit = threading.Timer(self.limit_seconds, self._give_up_store)
        limit.daemon = True
        limit.start()
        try:
            self._check()
        finally:
            limit.cancel()

    def _check(self) -> None:
        is_held_by_launcher = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if self.store_holder is None and not is_held_by_launcher and self.store.check(["0/address"]):
            self.store_holder = self.store.get("0/address").decode()
        self.beat += 1
        self.store.set(f"{self.rank}", str(self.beat))
        if self.store.check(["lost"]):
            self._give_up(int(self.store.get("lost")))
        # One that has not started yet is not missed: it may still be loading.
        has_started = self.store.check([f"{self.neighbour}"])
        sign = self.store.get(f"{self.neighbour}") if has_started else b"ended"
        is_silent = sign == self.seen and sign != b"ended"
        self.silent_seconds = self.silent_seconds + self.interval_seconds if is_silent else 0.0
        self.seen = sign
        if self.silent_seconds >= self.limit_seconds:
            self.store.set("lost", str(self.neighbour))
            self._give_up(self.neighbour)

    def say_goodbye(self) -> None:
        """Is not missed from now on."""
        self.store.set(f"{self.rank}", "ended")

    def _give_up(self, lost: int) -> None:
        if lost != self.rank:
            _kill_if_here(self.store.get(f"{lost}/address").decode())
        _end_process(f"Process {lost} of {self.world_size} gave no sign of life for {self.limit_seconds:g} s")

    def _give_up_store(self) -> None:
        if self.rank != 0 and self.store_holder is not None:
            _kill_if_here(self.store_holder)
        _end_process(
            f"The store that processes meet in, held by the first process or the launcher, gave no sign of life for "
            f"{self.limit_seconds:g} s"
        )


def _own_address() -> str:
    # The time of creation tells processes of different containers apart that have the same number.
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time()}"


def _kill_if_here(address: str) -> None:
    """Kills the process at an `_own_address` if that is on this machine.

    A launcher that is to end a stopped process sends it what it cannot receive first, and waits for half a minute.
    """
    host, pid, created = address.split()
    if host == socket.gethostname() and psutil.pid_exists(int(pid)):
        process = psutil.Process(int(pid))
        if abs(process.create_time() - float(created)) < 2:  # seconds: clocks are corrected now and then
            _kill(process)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # by now it may have ended
        process.kill()


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr, flush=True)


def _end_process(message: str) -> None:
    """Ends this process at once: no exception reaches its main thread, which waits for the lost one in a library."""
    rank = dist.get_rank()
    _say(
        f"{message}. Process {rank} ends, as all others will; the same command goes on at the last checkpoint. "
        "Raise --heartbeat_seconds if that process was only slow."
    )
    os._exit(EXIT_CODE)
