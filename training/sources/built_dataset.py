"""Datasets made by `training.data_building.build_dataset`."""

from collections.abc import Iterable
from pathlib import Path

import datasets

from training.sources.source_video import SourceVideo
from training.sources.table_files import resolve_inside
from training.transcripts.words import TimedWord

SPLITS = ("train", "heldout")


class BuiltDataset:
    """Narrated videos of a built dataset, from its Parquet files.

    Args:
        dataset: its folder.
        videos: the folder of videos it was built from.
        split: "train" or "heldout".

    Raises:
        FileNotFoundError: there is no dataset, or the first video does not exist.
        ValueError: the dataset has no videos of this split.
    """

    is_captioned = False

    def __init__(self, dataset: str | Path, videos: str | Path, split: str = "train"):
        self.dataset, self.split = Path(dataset), split
        self.rows = datasets.Dataset.from_parquet(split_files(self.dataset, split), split=split)
        self.videos = Path(videos).resolve()
        first = self.path(self.rows[0]["video"])
        if not first.is_file():
            raise FileNotFoundError(f"there is no video {first}; is {self.videos} the folder it was built from?")

    def __len__(self) -> int:
        return len(self.rows)

    def names(self) -> Iterable[str]:
        """Yield the path of each video, links not followed."""
        return (f"{self.videos}/{video}" for video in self.rows["video"])

    def path(self, video: str) -> Path:
        """Return the file of a `video` entry."""
        return resolve_inside(self.videos, video, str(self.dataset))

    def __getitem__(self, index: int) -> SourceVideo:
        """Return the video of row `index`."""
        row = self.rows[index]
        words = [TimedWord(**word) for word in row["words"]]
        place = f"{self.dataset}, {row['video']}"
        shots = row.get("shots") or ()  # older datasets have no such column
        return SourceVideo(self.path(row["video"]), row["video"], place, words, row["duration"], shots)


def find_splits(dataset: Path) -> dict[str, list[str]]:
    """Return the Parquet files of each split that has videos.

    Raises:
        FileNotFoundError: there is no built dataset.
    """
    files = {split: sorted(map(str, (dataset / "data").glob(f"{split}-*.parquet"))) for split in SPLITS}
    if not any(files.values()):
        raise FileNotFoundError(
            f"{dataset} holds no data/*.parquet; make it with python -m training.data_building.build_dataset"
        )
    return {split: own for split, own in files.items() if own}


def split_files(dataset: Path, split: str) -> list[str]:
    """Return the Parquet files of a split.

    Raises:
        FileNotFoundError: there is no built dataset.
        ValueError: it has no videos of this split.
    """
    files = find_splits(dataset).get(split)
    if files is None:
        raise ValueError(f"{dataset} has no videos of the split {split!r}; {no_split_help(split)}")
    return files


def no_split_help(split: str) -> str:
    """Return what to do about a split without videos."""
    if split == "heldout":
        return "build it with a larger --heldout_ratio, or name other videos as eval_source"
    return "splits are train and heldout"
