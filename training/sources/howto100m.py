"""Clips from HowTo100M: its list of videos and its one large caption file; items as in `clip_sources.py`."""

import json
import mmap
import re
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor
from training.sources.clip_sampling import ClipSampler, TranscriptError
from training.sources.table_files import read_table, resolve_inside
from training.transcripts.alignment import TimedWord
from training.transcripts.transcript_files import MAX_BYTES, read_howto100m

_ENTRY = re.compile(rb'"([^"\\]+)":\s*\{')
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv")


class HowTo100MClips(Dataset):
    """K clips a video; captions are timed by segments, so the words' times are spread over each.

    Args:
        list_file: CSV with a column `video_id`.
        captions: JSON of `{video_id: {"start": […], "end": […], "text": […]}}` for all videos. Gigabytes are fine: it
            is searched once for where each video begins, and read video by video.
        videos: folder with `<video_id>.mp4` (or .webm, .mkv).
        video_processor, num_clips, min_words, seed, deterministic: as in `YTTemporalClips`.

    Raises:
        FileNotFoundError, ValueError: a file or column is missing, or `videos` has not got the first video.
    """

    def __init__(
        self,
        list_file: str | Path,
        captions: str | Path,
        videos: str | Path,
        *,
        video_processor: TVTSv2VideoProcessor,
        num_clips: int = 4,
        min_words: int = 3,
        seed: int = 0,
        deterministic: bool = False,
    ):
        self.table = read_table(list_file, ["video_id"])
        self.captions, self.videos = Path(captions), Path(videos).resolve()
        self.places = find_entries(self.captions)
        self.sampler = ClipSampler(video_processor, num_clips, min_words)
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic
        if not self.path(0).is_file():
            raise FileNotFoundError(f"{self.table.place(0)}: there is no video {self.path(0)}; is the folder right?")

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Other draws from here on; the Trainer calls it."""
        self.epoch = epoch

    def path(self, index: int) -> Path:
        """The video file of a row; the .mp4 path if there is none of any kind."""
        video_id, place = self.table.columns["video_id"][index], self.table.place(index)
        paths = [resolve_inside(self.videos, f"{video_id}{suffix}", place) for suffix in VIDEO_SUFFIXES]
        return next((path for path in paths if path.is_file()), paths[0])

    def words(self, index: int) -> tuple[float, list[TimedWord]]:
        """Seconds up to the end of the last caption, and all words.

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
            return max(content["end"], default=0.0), read_howto100m(content).words
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TranscriptError(
                f"{place}: captions of {video_id!r} in {self.captions} are broken: {error}"
            ) from error

    def __getitem__(self, index: int) -> dict:
        """The item of row `index`.

        Raises:
            VideoReadingError: the video is missing or cannot be read.
            TranscriptError: its captions are missing or broken, or no span with enough words was found.
        """
        duration, words = self.words(index)
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        video_id = self.table.columns["video_id"][index]
        name = f"{self.table.place(index)}, {video_id}"
        item = self.sampler.sample(self.path(index), duration=duration, words=words, name=name, generator=generator)
        return {**item, "video_id": video_id}


def find_entries(captions: Path) -> dict[str, tuple[int, int]]:
    """Where in the caption file each video's object lies: id -> bytes [start, end), the end up to the next one's."""
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
