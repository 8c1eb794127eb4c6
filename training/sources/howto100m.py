"""HowTo100M: a list of videos, and one large caption file for all of them."""

import json
import mmap
import re
from collections.abc import Iterable
from pathlib import Path

from training.sources.clip_sampling import TranscriptError
from training.sources.source_video import SourceVideo
from training.sources.table_files import check_first_video, read_table, resolve_inside
from training.transcripts.transcript_files import MAX_BYTES, read_howto100m

_ENTRY = re.compile(rb'"([^"\\]+)":\s*\{')
DOWNLOADED_SUFFIXES = (".mp4", ".webm", ".mkv")


class HowTo100M:
    """Narrated videos of HowTo100M; captions time whole segments, so words are spread over each segment.

    Args:
        list_file: CSV with a column `video_id`.
        captions: JSON of `{video_id: {"start": […], "end": […], "text": […]}}` for all videos. The file may have
            gigabytes: it is searched once for where each video begins, and read video by video.
        videos: folder with `<video_id>.mp4` (or .webm, .mkv).

    Raises:
        FileNotFoundError: a file, or the first video, does not exist.
        ValueError: the list file or the caption file is broken.
    """

    is_captioned = False

    def __init__(self, list_file: str | Path, captions: str | Path, videos: str | Path):
        self.table = read_table(list_file, ["video_id"])
        self.captions, self.videos = Path(captions), Path(videos).resolve()
        self.places = find_entries(self.captions)
        check_first_video(self.table, self.path(0), self.videos)

    def __len__(self) -> int:
        return len(self.table)

    def names(self) -> Iterable[str]:
        """Yield the path of each video without its suffix, links not followed."""
        return (f"{self.videos}/{video_id}" for video_id in self.table.columns["video_id"])

    def path(self, index: int) -> Path:
        """Return the video file of a row; the .mp4 path where no file exists."""
        video_id, place = self.table.columns["video_id"][index], self.table.place(index)
        paths = [resolve_inside(self.videos, f"{video_id}{suffix}", place) for suffix in DOWNLOADED_SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def __getitem__(self, index: int) -> SourceVideo:
        """Return the video of row `index`; clips may lie in it up to the end of the last caption.

        Raises:
            TranscriptError: the caption file has no such video, or a broken entry.
        """
        video_id, place = self.table.columns["video_id"][index], self.table.place(index)
        if video_id not in self.places:
            raise TranscriptError(f"{place}: {self.captions} has no captions of video {video_id!r}")
        start, end = self.places[video_id]
        if end - start > MAX_BYTES:
            raise TranscriptError(f"{place}: captions of {video_id!r} are larger than {MAX_BYTES >> 20} MiB")
        with open(self.captions, "rb") as file:
            file.seek(start)
            text = file.read(end - start)
        try:
            content, _ = json.JSONDecoder().raw_decode(text.decode())
            duration, words = max(content["end"], default=0.0), read_howto100m(content)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TranscriptError(
                f"{place}: captions of {video_id!r} in {self.captions} are broken: {error}"
            ) from error
        return SourceVideo(self.path(index), video_id, f"{place}, {video_id}", words, duration, on_file_clock=True)


def find_entries(captions: Path) -> dict[str, tuple[int, int]]:
    """Return the place of each video's object in the caption file: id -> bytes [start, end), up to the next object."""
    if not captions.is_file():
        raise FileNotFoundError(f"there is no caption file {captions}")
    if not captions.stat().st_size:
        raise ValueError(f"{captions} is empty")
    with open(captions, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        found = [(match[1].decode(errors="replace"), match.end() - 1) for match in _ENTRY.finditer(text)]
        size = len(text)
    if not found:
        raise ValueError(f'{captions} has no entry like "video_id": {{"start": […], "end": […], "text": […]}}')
    ends = [start for _, start in found[1:]] + [size]
    return {video_id: (start, end) for (video_id, start), end in zip(found, ends, strict=True)}
