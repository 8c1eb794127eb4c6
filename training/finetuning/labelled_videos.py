"""Videos with a class or a caption each: from a folder per class, or from a table."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from processing import TVTSv2Processor, TVTSv2VideoProcessor, video_files
from training.sources.source_video import SourceVideo
from training.sources.table_files import read_table, resolve_inside
from training.transcripts.words import repair_encoding

logger = logging.getLogger(__name__)


def find_videos(source: str | Path, column: str) -> list[SourceVideo]:
    """Return the videos of a source, in a fixed order, with their class or caption as `caption`.

    Hidden files and dangling links are left out and logged.

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
        videos = [_labelled(source / name, name.split("/")[0]) for name in found.names if "/" in name]
        if not videos:
            message = f"{source} holds no folders of videos; expected {source}/CLASS/video.mp4."
            raise ValueError(f"{message} {left_out}".rstrip())
        if left_out:
            logger.warning("%s: %s", source, left_out)
        return videos
    table = read_table(source, ["path", column])
    root = source.parent.resolve()
    return [
        _labelled(resolve_inside(root, path, table.place(index)), repair_encoding(text))
        for index, (path, text) in enumerate(zip(*table.columns.values(), strict=True))
    ]


def _labelled(path: Path, text: str) -> SourceVideo:
    return SourceVideo(path, str(path), str(path), duration=float("inf"), caption=text)


def check_heldout(heldout: list[SourceVideo], trained: list[SourceVideo]) -> None:
    """Log a warning for videos to evaluate on that are also trained on.

    Raises:
        ValueError: one does not exist; evaluating would end the run much later.
    """
    missing = [video.file for video in heldout if not video.file.is_file()]
    if missing:
        raise ValueError(f"{len(missing)} of {len(heldout)} videos to evaluate on do not exist, such as {missing[0]}.")
    shared = {video.file.resolve() for video in heldout} & {video.file.resolve() for video in trained}
    if shared:
        logger.warning("%d videos to evaluate on are trained on, too, such as %s.", len(shared), min(shared))


def find_labels(videos: list[SourceVideo]) -> list[str]:
    """Return the classes, sorted.

    Raises:
        ValueError: fewer than two.
    """
    labels = sorted({video.caption for video in videos})
    if len(labels) < 2:
        raise ValueError(f"A classifier needs at least 2 classes, found {labels}.")
    return labels


class EvaluationVideos(Dataset):
    """Videos by the processor's own transform; a broken one is an error, as a score without it would be another."""

    def __init__(self, videos: list[SourceVideo], video_processor: TVTSv2VideoProcessor):
        self.videos, self.video_processor = videos, video_processor

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict:
        """Return `pixel_values_videos` (T, 3, H, W) and `transcripts`, the text alone."""
        video = self.videos[index]
        pixels = self.video_processor(str(video.file))["pixel_values_videos"][0]
        return {"pixel_values_videos": pixels, "transcripts": [video.caption], "num_broken": 0}


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
        texts = [text for sample in samples for text in sample["transcripts"]]
        if self.labels is None:
            return batch | dict(self.processor(text=texts, return_tensors="pt"))
        return batch | {"labels": torch.tensor([self.labels.index(text) for text in texts])}
