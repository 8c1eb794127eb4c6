"""Which process works on which videos, when several share a store, also on several machines.

    store/.queue/lock             guards every change of the store
    store/.queue/claims.jsonl     a line per claim: the worker and the names it takes
    store/.queue/worker-*         one file per process, locked as long as the process lives

Locks are the file system's (flock): they end with their process, however that ends, and must hold on all machines that
share the folder, as on NFS they do. Windows has none: there, one process per store is the user's responsibility.
"""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:
    fcntl = None  # type: ignore[assignment]

CLAIM_SIZE = 8  # videos per claim: few, so that a process with long videos holds up no others


class WorkQueue:
    """This process's place in the queue of a store; a context manager that leaves it.

    Args:
        folder: the store.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / ".queue"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name = f"worker-{uuid.uuid4().hex[:12]}"
        self._depth = 0
        self._worker_of: dict[str, str] = {}  # by the name of a video
        self._num_bytes_read = 0
        with self.locked():
            if not self.others():  # claims of processes that have ended
                (self.folder / "claims.jsonl").unlink(missing_ok=True)
            self._own = open(self.folder / self.name, "w")  # noqa: SIM115 (open as long as this process works)
            _lock(self._own)

    def __enter__(self) -> "WorkQueue":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self._own.close()
        (self.folder / self.name).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the store; may be nested."""
        self._depth += 1
        try:
            if self._depth > 1:
                yield
                return
            with open(self.folder / "lock", "w") as file:
                _lock(file)
                yield
        finally:
            self._depth -= 1

    def others(self) -> set[str]:
        """Return the other processes that are at work; the caller holds the lock."""
        return {path.name for path in self.folder.glob("worker-*") if path.name != self.name and _is_locked(path)}

    def take(self, entries: Iterable, find_done: Callable[[], set[str]]) -> Iterator:
        """Yield the entries that no other process takes, claimed as they are asked for.

        Those that an ended process had claimed come last, unless it had finished them.

        Args:
            entries: objects with a `name`.
            find_done: returns the names that are in the store or its list of failures by now.
        """
        waiting, left = list(entries), list[Any]()
        waiting.reverse()
        while waiting:
            yield from self._claim(waiting, left, ended=set())
        with self.locked():
            ended = set(self._worker_of.values()) - self.others() - {self.name}
            done = find_done()
        waiting = [entry for entry in reversed(left) if entry.name not in done]
        while waiting:
            yield from self._claim(waiting, [], ended=ended)

    def _claim(self, waiting: list, left: list, *, ended: set[str]) -> list:
        """Move up to `CLAIM_SIZE` entries from the end of `waiting` to this process, and those of others to `left`."""
        with self.locked():
            self._read_claims()
            mine: list = []
            while waiting and len(mine) < CLAIM_SIZE:
                entry = waiting.pop()
                worker = self._worker_of.get(entry.name)
                (mine if worker is None or worker in ended else left).append(entry)
            line = json.dumps({"worker": self.name, "names": [entry.name for entry in mine]})
            with open(self.folder / "claims.jsonl", "a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")
        return mine

    def _read_claims(self) -> None:
        """Read the claims that have come since the last call; the caller holds the lock."""
        # Opened for appending, which creates it: NFS may remember for a while that a file was not there.
        with open(self.folder / "claims.jsonl", "a+", encoding="utf-8") as stream:
            stream.seek(self._num_bytes_read)
            for line in stream.read().split("\n"):
                try:
                    claim = json.loads(line)
                except json.JSONDecodeError:
                    continue  # blank, or cut off when the process was killed, which had not begun then
                self._worker_of |= dict.fromkeys(claim["names"], claim["worker"])
            self._num_bytes_read = stream.tell()


def _lock(file) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        reason = f"{error.strerror}: this file system has no locks (flock); put the store on one that has"
        raise OSError(error.errno, reason, file.name) from error


def _is_locked(path: Path) -> bool:
    """Return whether the process of a file lives; the file of an ended one is removed."""
    if fcntl is None:
        return False
    try:
        with open(path, "r+") as file:  # NFS locks no file that is open for reading only
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
