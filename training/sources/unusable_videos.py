"""The list of videos that could not be used: one JSON line each, whichever process met it, however often."""

import fcntl
import json
from pathlib import Path


class TooManyBrokenVideosError(RuntimeError):
    """More samples than allowed were of videos that cannot be used."""

    def __str__(self) -> str:
        # torch puts the traceback of a loading worker around the message of its error.
        return super().__str__().rstrip().rpartition(f"{type(self).__name__}: ")[2]


class BrokenVideos:
    """A file of lines that processes and workers share; no line is written twice.

    Args:
        path: of the file; made with its first line.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._known: set[int] = set()  # hashes: a long run's list may be long
        self._num_bytes_known = 0

    def __len__(self) -> int:
        return len(self.path.read_bytes().splitlines()) if self.path.is_file() else 0

    def add(self, record: dict) -> None:
        """Write the record of a video, unless the same is there: from another worker, or from before a restart."""
        # Names that are not UTF-8 hold surrogates, which JSON can write as escapes.
        line = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace")
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
            file.seek(self._num_bytes_known)
            added = file.read()
            # What a kill or a full disk cut off gets a line of its own, and is kept as it is.
            if added and not added.endswith(b"\n"):
                file.write(b"\n")
                added += b"\n"
            self._known.update(map(hash, added.splitlines()))
            self._num_bytes_known += len(added)
            if hash(line) not in self._known:
                self._known.add(hash(line))
                self._num_bytes_known += file.write(line + b"\n")
