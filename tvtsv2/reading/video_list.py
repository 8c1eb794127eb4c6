"""Which videos a command is to read: those of a folder, or those that a list file names."""

import csv
import sys
from dataclasses import dataclass
from pathlib import Path

from processing.video_files import VIDEO_SUFFIXES, find_videos, is_video_name
from tvtsv2.errors import ArgumentError

TABLE_DELIMITERS = {".csv": ",", ".tsv": "\t"}
LIST_SUFFIXES = (".txt", *TABLE_DELIMITERS)


@dataclass(frozen=True)
class VideoEntry:
    """A video to read: its path below the root, with slashes, under which it is known, and where it lies."""

    name: str
    path: Path

    def stamp(self) -> tuple[int, int] | None:
        """Return size in bytes and time of modification in ns, by which a changed file is recognized; None: no file."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


def list_videos(
    source: str | Path, *, root: str | Path | None = None, column: str = "path", complete: bool = False
) -> list[VideoEntry]:
    """Return the videos of a folder (searched through, by file name suffix), of a list file, or one video file.

    What is left out of a folder (hidden files, dangling links, links to folders) is named on stderr.

    Args:
        source: A folder; a video file; a .txt file with a path a line; or a .csv or .tsv file with a header.
        root: What the paths of a list are relative to; None: the list's folder.
        column: The table's column of paths.
        complete: Refuse a single video and a folder of which a part cannot be read, because the result decides what is
            removed from a store.

    Raises:
        ValueError, FileNotFoundError: There is no such source, it names no videos, or it is no readable list.
    """
    source = Path(source)
    is_list = source.suffix.lower() in LIST_SUFFIXES and not source.is_dir()
    if root is not None and not is_list:
        raise ArgumentError(f"--root belongs to a list file, but {source} is none.")
    if column != "path" and not (is_list and source.suffix.lower() in TABLE_DELIMITERS):
        raise ArgumentError(f"--column belongs to a .csv or .tsv file, but {source} is none.")
    if source.is_dir():
        found = find_videos(source)
        if complete and "unreadable folder" in found.left_out:
            unreadable = found.left_out["unreadable folder"][0]
            raise ValueError(f"--sync would remove the videos of {source / unreadable}, which cannot be read.")
        if found.left_out:
            print(found.describe_left_out(), file=sys.stderr)
        if not found.names:
            raise ValueError(f"{source} holds no videos ({' '.join(VIDEO_SUFFIXES)}).")
        return [VideoEntry(name, source / name) for name in found.names]
    if not source.is_file():
        raise FileNotFoundError(f"There is no folder, list file or video {source}.")
    if is_video_name(source.name):
        if complete:
            raise ArgumentError(f"--sync compares the store with a folder or a list, but {source} is one video.")
        return [VideoEntry(source.name, source)]
    root = source.parent if root is None else Path(root)
    names = list(dict.fromkeys(_read_names(source, column)))
    if not names:
        raise ValueError(f"{source} names no videos.")
    return [VideoEntry(name, root / name) for name in names]


def _read_names(file: Path, column: str) -> list[str]:
    suffix = file.suffix.lower()
    if suffix not in LIST_SUFFIXES:
        raise ValueError(
            f"{file}: a list's name ends in .txt (a path a line), .csv or .tsv (with a column {column!r})."
        )
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            if suffix == ".txt":
                return [line.strip() for line in stream if line.strip()]
            reader = csv.DictReader(stream, delimiter=TABLE_DELIMITERS[suffix], strict=True)
            if column not in (reader.fieldnames or []):
                raise ValueError(f"{file} has no column {column!r}, only {reader.fieldnames}; name it with --column.")
            names = [(row[column] or "").strip() for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a readable list: {error}") from error
    if "" in names:
        raise ValueError(f"{file}: row {names.index('') + 1} has no {column!r}.")
    return names
