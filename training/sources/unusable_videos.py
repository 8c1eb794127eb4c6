"""The ledger of videos that could not be used: one JSON line each, whoever met it, however often."""

import fcntl
import json
from pathlib import Path


class TooManyBrokenVideosError(RuntimeError):
    """More samples than allowed were of videos that cannot be used."""


class BrokenVideos:
    """Lines in a file that processes and workers share; a line that is there is not written again.

    Args:
        path: of the file; made with its first line.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._known: set[int] = set()  # hashes: a long run's ledger may be long
        self._num_bytes_known = 0

    def __len__(self) -> int:
        return len(self.path.read_bytes().splitlines()) if self.path.is_file() else 0

    def add(self, record: dict) -> None:
        """Writes down a video, unless the very same record is there: from another worker, or from before a restart."""
        line = json.dumps(record, ensure_ascii=False).encode()
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, also by a kill
            file.seek(self._num_bytes_known)
            added = file.read()
            # What a kill or a full disk cut off gets a line of its own, and stays known as it is.
            if added and not added.endswith(b"\n"):
                file.write(b"\n")
                added += b"\n"
            self._known.update(map(hash, added.splitlines()))
            self._num_bytes_known += len(added)
            if hash(line) not in self._known:
                self._known.add(hash(line))
                self._num_bytes_known += file.write(line + b"\n")
