"""Errors of dead or unresponsive loading workers.

torch reports a killed worker at once and a slow one after the loader's timeout, except where a worker stops after it
has announced a batch: then torch waits for the batch's memory without limit, and a thread ends the worker. torchrun
ends a run whose process dies and `ddp_timeout` one that hangs.
"""

import contextlib
import multiprocessing
import threading
import time
import traceback
from collections.abc import Iterator

import psutil

POLLS_PER_TIMEOUT = 5


class DataLoadingError(Exception):
    """A loading worker is dead, or gave no batch in time."""


@contextlib.contextmanager
def loading_errors_explained(timeout_seconds: float) -> Iterator[None]:
    """Raise a `DataLoadingError` for torch's errors about loading workers, and leave no worker behind.

    torch raises wherever the main thread happens to be, not only where it waits for a batch. A stopped worker keeps
    this process from ending: torch sends it a signal that it cannot receive, and waits.
    """
    done = threading.Event()
    if timeout_seconds > 0:
        threading.Thread(target=_kill_stopped_children, args=(timeout_seconds, done), daemon=True).start()
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
            f"{error} Nothing more was trained. A worker that was killed often had too little memory: use fewer "
            "--dataloader_num_workers. If reading a batch may take a worker longer than "
            f"--dataloader_timeout={timeout_seconds:g} seconds, raise it. The same command resumes at the last "
            "checkpoint."
        ) from error
    finally:
        done.set()


def _kill_stopped_children(timeout_seconds: float, done: threading.Event) -> None:
    """Kill the children of this process that are stopped, by a signal, for more than the timeout."""
    polls: dict[int, int] = {}  # not seconds: this process may have been stopped, too
    while not done.wait(timeout_seconds / POLLS_PER_TIMEOUT):
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                is_stopped = child.status() == psutil.STATUS_STOPPED
                polls[child.pid] = polls.get(child.pid, 0) + 1 if is_stopped else 0
                # Later than torch's own timeout, which ends the other cases.
                if polls[child.pid] > POLLS_PER_TIMEOUT + 1:
                    child.kill()


def _came_while_fetching(error: Exception) -> bool:
    """Return whether an error comes from taking over the memory of a worker's batch, not from reading a dataset."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(frame.f_globals.get("__name__") == "torch.multiprocessing.reductions" for frame in frames)


def is_of_a_worker(error: Exception) -> bool:
    """Return whether an error is torch's report of a dead or late loading worker."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")  # the prefix of all of these


def kill_loading_workers() -> None:
    """End all daemonic children of this process at once, stopped ones too."""
    for child in multiprocessing.active_children():
        if child.daemon:
            # torch raises here for the worker that ends.
            with contextlib.suppress(RuntimeError):
                child.kill()
                child.join(5)
