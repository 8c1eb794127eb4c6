"""Video files in a folder: the one list of suffixes, the one walk, and the hash of a file's bytes."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

VIDEO_SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogg", ".ogv", ".ts", ".webm", ".wmv"),
)
NAMES_SHOWN = 3


@dataclass(frozen=True)
class FoundVideos:
    """The videos below a folder, and what was left out.

    Attributes:
        names: paths below the folder, with slashes, sorted. Bytes that are not UTF-8 become surrogates (`os.fsdecode`).
        left_out: names by reason: "hidden", "dangling link", "link to a folder", "not a regular file" and
            "unreadable folder".
    """

    names: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def describe_left_out(self) -> str:
        """Return one line that counts and names what was left out; empty if nothing was."""
        parts = []
        for reason, names in sorted(self.left_out.items()):
            shown = ", ".join(map(printable_name, sorted(names)[:NAMES_SHOWN]))
            parts.append(f"{len(names)} {reason} ({shown}{', …' if len(names) > NAMES_SHOWN else ''})")
        return f"left out: {'; '.join(parts)}" if parts else ""


def find_videos(folder: str | Path) -> FoundVideos:
    """Return all files below a folder whose suffix is one of `VIDEO_SUFFIXES`, in a fixed order.

    Hidden files and folders (`._clip.mp4` of macOS, `.Trash`) are ignored, links to folders are not followed, and links
    to nowhere are no videos; `left_out` names them all.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = FoundVideos()
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            entries = list(os.scandir(os.path.join(folder, prefix)))
        except OSError:
            if not prefix:
                raise
            found.left_out.setdefault("unreadable folder", []).append(prefix.rstrip("/"))
            continue
        for entry in entries:
            name, reason = prefix + entry.name, _reason_to_leave_out(entry)
            if reason is not None:
                found.left_out.setdefault(reason, []).append(name)
            elif entry.is_dir():
                waiting.append(f"{name}/")
            elif is_video_name(name):
                found.names.append(name)
    found.names.sort()
    return found


def _reason_to_leave_out(entry: os.DirEntry) -> str | None:
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link in circles
        return "dangling link"
    if is_folder and entry.is_symlink():
        return "link to a folder"
    if is_folder:
        return "hidden" if entry.name.startswith(".") else None
    if not is_video_name(entry.name):
        return None
    if entry.name.startswith("."):
        return "hidden"
    if not entry.is_file():
        return "dangling link" if entry.is_symlink() else "not a regular file"
    return None


def is_video_name(name: str) -> bool:
    """Return whether a file name ends in a suffix of `VIDEO_SUFFIXES`, in any case."""
    return name.lower().endswith(VIDEO_SUFFIXES)


def printable_name(name: str) -> str:
    r"""Return a file name for output in UTF-8: bytes that are not UTF-8 become `\xNN`."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
