"""Which file of a folder an annotated video is: names with or without suffix, sub-folders, and other spellings."""

import unicodedata
from pathlib import Path

from processing.video_files import VIDEO_SUFFIXES, find_videos


class VideoFolder:
    """The video files below a folder, by the names that annotations call them.

    Only files that were found there are ever returned, whatever an annotation says; links to folders are not followed.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: no video file lies below it.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"There is no folder {self.root}.")
        self._by_path: dict[str, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for name in find_videos(self.root).names:
            self._enter(name)
        if not self._by_path:
            raise ValueError(f"{self.root} holds no video file ({', '.join(VIDEO_SUFFIXES)}).")

    def _enter(self, relative: str) -> None:
        path = _composed(relative)
        name = path.rpartition("/")[2]
        for index, full in ((self._by_path, path), (self._by_name, name)):
            for key in {full, _stem(full)}:
                index.setdefault(key, []).append(relative)

    def find(self, name: str) -> Path | None:
        """The file of a video, or None.

        Args:
            name: A path below the folder or a file's name, either with or without its suffix (or with another one), or
                a YouTube id with the times of the cut behind.

        Raises:
            ValueError: several files have the name.
        """
        wanted = _composed(name)
        last = wanted.rpartition("/")[2]
        keys = [(self._by_path, wanted), (self._by_path, _stem(wanted)), (self._by_name, last)]
        keys.append((self._by_name, _stem(last)))
        if _is_cut(last):
            keys.append((self._by_name, "_".join(last.split("_")[:-2])))
        for index, key in keys:
            files = index.get(key, [])
            if len(files) > 1:
                raise ValueError(f"{name!r} could be any of {files[:3]} in {self.root}; give only one of them.")
            if files:
                return self.root / files[0]
        return None

    def find_all(self, names: tuple[str, ...]) -> tuple[dict[str, Path], list[str]]:
        """The files of videos by name, and the names for which there is none."""
        found = {name: self.find(name) for name in names}
        missing = [name for name, path in found.items() if path is None]
        return {name: path for name, path in found.items() if path is not None}, missing


def _composed(name: str) -> str:
    """Letters with accents in one piece: macOS stores them in two."""
    return unicodedata.normalize("NFC", name)


def _stem(name: str) -> str:
    """A name without its suffix, if that is one of a video; names may have other dots in them."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else name


def _is_cut(name: str) -> bool:
    """Whether a name ends like Kinetics' cuts: `<youtube_id>_000012_000022`."""
    times = _stem(name).split("_")[-2:]
    return len(times) == 2 and all(len(time) == 6 and time.isdigit() for time in times)
