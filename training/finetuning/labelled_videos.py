"""Videos with a class or a caption each: from a folder per class, or from a table."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from processing import TVTSv2Processor, TVTSv2VideoProcessor, VideoReadingError, video_files
from training.sources.clip_dataset import ClipKey
from training.sources.table_files import read_table, resolve_inside
from training.sources.unusable_videos import BrokenVideos

logger = logging.getLogger(__name__)

MAX_REPLACEMENTS = 20  # in a row; more broken videos than that are no accident


@dataclass(frozen=True)
class LabelledVideo:
    """A file and its class or caption."""

    path: Path
    text: str


def find_videos(source: str | Path, column: str) -> list[LabelledVideo]:
    """Return the videos of a source, in a fixed order; hidden files and dangling links are left out and logged.

    Args:
        source: a folder with a folder of videos per class, whose names are the texts; or a .csv or .tsv table with the
            columns `path`, relative to the table's folder, and `column`.

    Raises:
        ValueError, FileNotFoundError: there is no such source, it holds no videos, or the table is broken.
    """
    source = Path(source)
    if source.is_dir():
        found = video_files.find_videos(source)
        left_out = found.describe_left_out()
        videos = [LabelledVideo(source / name, name.split("/")[0]) for name in found.names if "/" in name]
        if not videos:
            message = f"{source} holds no folders of videos; expected {source}/CLASS/video.mp4."
            raise ValueError(f"{message} {left_out}".rstrip())
        if left_out:
            logger.warning("%s: %s", source, left_out)
        return videos
    table = read_table(source, ["path", column])
    root = source.parent.resolve()
    return [
        LabelledVideo(resolve_inside(root, path, table.place(index)), text)
        for index, (path, text) in enumerate(zip(*table.columns.values(), strict=True))
    ]


def find_labels(videos: list[LabelledVideo]) -> list[str]:
    """Return the classes, sorted.

    Raises:
        ValueError: fewer than two.
    """
    labels = sorted({video.text for video in videos})
    if len(labels) < 2:
        raise ValueError(f"A classifier needs at least 2 classes, found {labels}.")
    return labels


class ShuffledVideos(Sampler[ClipKey]):
    """Keys of all videos in random order, another one in each epoch.

    Epochs travel in the keys: accelerate sets a dataset's epoch in one process only, and not in loading workers that
    live longer than an epoch.

    Args:
        num_videos: how many there are.
        seed: of the order.
        samples_per_step: an epoch ends with its last whole step; which videos are left out differs from epoch to epoch.

    Raises:
        ValueError: there are fewer videos than one step takes.
    """

    def __init__(self, num_videos: int, seed: int, samples_per_step: int = 1):
        if num_videos < samples_per_step:
            raise ValueError(
                f"A step takes {samples_per_step} videos over all processes, but there are {num_videos}: lower "
                "--per_device_train_batch_size, or start fewer processes."
            )
        self.num_videos, self.seed, self.epoch = num_videos, seed, 0
        self.num_samples = num_videos // samples_per_step * samples_per_step

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that seeds the order; the Trainer calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples

    def __iter__(self) -> Iterator[ClipKey]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_videos)
        yield from (ClipKey(self.epoch, int(index)) for index in order[: self.num_samples])


class TrainingVideos(Dataset):
    """Randomly sampled, randomly cropped clips; a broken video gives its place to the next one and is written down.

    Args:
        videos, video_processor: what to read, and how.
        seed: with the key it decides frames and crop.
        broken_videos_file: file that gets a line per broken video, whoever meets it and however often.
    """

    def __init__(
        self, videos: list[LabelledVideo], video_processor: TVTSv2VideoProcessor, *, seed: int, broken_videos_file: Path
    ):
        self.videos, self.video_processor, self.seed = videos, video_processor, seed
        self.broken_videos = BrokenVideos(broken_videos_file)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: ClipKey) -> dict:
        """Return `frames` (T, H, W, 3) uint8, `text`, and `num_broken`, videos passed over.

        Raises:
            VideoReadingError: too many broken videos in a row.
        """
        generator = np.random.default_rng([self.seed, *key])
        for num_broken in range(MAX_REPLACEMENTS + 1):
            video = self.videos[(key.index + num_broken) % len(self.videos)]
            try:
                frames = self.video_processor.sample_training_frames(str(video.path), generator=generator)
            except VideoReadingError as error:
                last_error = error
                self.broken_videos.add({"path": str(video.path), "reason": str(error)})
                continue
            return {"frames": frames, "text": video.text, "num_broken": num_broken}
        raise last_error


class EvaluationVideos(Dataset):
    """Videos by the processor's own transform; a broken one is an error, as a score without it would be another."""

    def __init__(self, videos: list[LabelledVideo], video_processor: TVTSv2VideoProcessor):
        self.videos, self.video_processor = videos, video_processor

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        """Return `pixel_values_videos` (T, 3, H, W) and `text`."""
        video = self.videos[index]
        pixels = self.video_processor(str(video.path))["pixel_values_videos"][0]
        return {"pixel_values_videos": pixels, "text": video.text, "num_broken": 0}


@dataclass
class FinetuningCollator:
    """Stacks samples; texts become `labels` int64 (B,) by `labels`, or `input_ids` (B, L) where there are none."""

    processor: TVTSv2Processor
    labels: list[str] | None = None

    def __call__(self, samples: list[dict]) -> dict:
        videos = "frames" if "frames" in samples[0] else "pixel_values_videos"
        batch = {
            videos: torch.stack([sample[videos] for sample in samples]),
            "num_broken": sum(sample["num_broken"] for sample in samples),
        }
        texts = [sample["text"] for sample in samples]
        if self.labels is None:
            return batch | dict(self.processor(text=texts, return_tensors="pt"))
        return batch | {"labels": torch.tensor([self.labels.index(text) for text in texts])}
