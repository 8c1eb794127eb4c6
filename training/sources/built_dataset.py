"""Clips from a data set that `training.data_building.build_dataset` made; items as in `clip_sources.py`."""

from pathlib import Path

import datasets
import numpy as np
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor
from training.sources.clip_sampling import ClipSampler
from training.sources.table_files import resolve_inside
from training.transcripts.alignment import TimedWord


class BuiltClips(Dataset):
    """K clips a video with the words spoken in each, from the Parquet files of a built data set.

    Args:
        dataset: its folder.
        videos: the folder of videos it was built from.
        split: "train" or "heldout".
        video_processor, num_clips, min_words, seed, deterministic: as in `YTTemporalClips`.

    Raises:
        FileNotFoundError: there are no Parquet files of this split, or `videos` has not got the first video.
    """

    def __init__(
        self,
        dataset: str | Path,
        videos: str | Path,
        split: str = "train",
        *,
        video_processor: TVTSv2VideoProcessor,
        num_clips: int = 4,
        min_words: int = 3,
        seed: int = 0,
        deterministic: bool = False,
    ):
        self.dataset, self.split = Path(dataset), split
        files = sorted(map(str, (self.dataset / "data").glob(f"{split}-*.parquet")))
        if not files:
            raise FileNotFoundError(f"there is no {split}-*.parquet in {self.dataset / 'data'}; was it built there?")
        self.rows = datasets.load_dataset("parquet", data_files={split: files}, split=split)
        self.videos = Path(videos).resolve()
        self.sampler = ClipSampler(video_processor, num_clips, min_words)
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic
        first = self.path(self.rows[0]["video"])
        if not first.is_file():
            raise FileNotFoundError(f"there is no video {first}; is {self.videos} the folder it was built from?")

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Other draws from here on; the Trainer calls it."""
        self.epoch = epoch

    def path(self, video: str) -> Path:
        """The file of a `video` entry."""
        return resolve_inside(self.videos, video, str(self.dataset))

    def __getitem__(self, index: int) -> dict:
        """The item of row `index`.

        Raises:
            VideoReadingError: the video is missing or cannot be read.
            TranscriptError: no span with enough words was found.
        """
        row = self.rows[index]
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        item = self.sampler.sample(
            self.path(row["video"]),
            duration=row["duration"],
            words=[TimedWord(**word) for word in row["words"]],
            name=f"{self.dataset}, {row['video']}",
            generator=generator,
        )
        return {**item, "video_id": row["video"]}
