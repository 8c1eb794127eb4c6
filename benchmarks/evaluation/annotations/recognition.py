"""Videos and classes of recognition benchmarks, read from the files as published.

Axes: N videos, C classes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation.annotations.files import (
    check_unique,
    read_json,
    read_lines,
    split_checksum,
    text_field,
)
from processing.video_files import VIDEO_SUFFIXES
from training.sources.table_files import read_table

PARTS = ("train", "test")


@dataclass(frozen=True)
class RecognitionSet:
    """One part of a split for recognition.

    Attributes:
        classes: C names as people write them, to be put into prompts.
        videos: N names as annotated, each once.
        labels: N indices into `classes`.
    """

    classes: tuple[str, ...]
    videos: tuple[str, ...]
    labels: tuple[int, ...]

    @property
    def checksum(self) -> str:
        """Of the split as read."""
        return split_checksum(self.classes, self.videos, self.labels)


def read_hmdb51(folder: str | Path, part: str, split: int) -> RecognitionSet:
    """HMDB-51: a folder of `<class>_test_split<n>.txt`, lines `<video> 1` (train), `2` (test) or `0` (neither)."""
    files = sorted(_existing_folder(folder).glob(f"*_test_split{split}.txt"))
    if not files:
        raise ValueError(f"{folder} has no files named <class>_test_split{split}.txt; HMDB-51 has splits 1, 2 and 3.")
    pairs = []
    for file in files:
        name = file.name.removesuffix(f"_test_split{split}.txt")
        for place, line in read_lines(file):
            video, _, role = line.rpartition(" ")
            if role not in ("0", "1", "2") or not video.strip():
                raise ValueError(f"{place}: {line!r} is not '<video> 0', '<video> 1' or '<video> 2'.")
            if role == {"train": "1", "test": "2"}[part]:
                pairs.append((f"{name}/{video.strip()}", name))
    classes = [file.name.removesuffix(f"_test_split{split}.txt") for file in files]
    return _from_pairs(pairs, folder, classes, _words)


def read_ucf101(folder: str | Path, part: str, split: int) -> RecognitionSet:
    """UCF-101: a folder with `classInd.txt`, `trainlist0<n>.txt` and `testlist0<n>.txt`; videos `<class>/<file>`."""
    folder = _existing_folder(folder)
    classes = []
    for place, line in read_lines(folder / "classInd.txt"):
        number, _, name = line.partition(" ")
        if number != str(len(classes) + 1) or not name:
            raise ValueError(f"{place}: {line!r} is not '{len(classes) + 1} <class>'.")
        classes.append(name.strip())
    file = folder / f"{part}list{split:02d}.txt"
    pairs = []
    for place, line in read_lines(file):
        video = line.split(" ")[0]  # train lists have the class number behind
        name = video.partition("/")[0]
        if name not in classes:
            raise ValueError(f"{place}: {name!r} is no class of classInd.txt.")
        pairs.append((video, name))
    return _from_pairs(pairs, file, classes, _words)


def read_kinetics(file: str | Path, part: str, split: int) -> RecognitionSet:
    """Kinetics: a CSV with columns label, youtube_id, time_start, time_end; one file for each of train, val, test.

    A video is named `<youtube_id>_<start>_<end>`, times in seconds with six digits, as the usual downloads are.
    """
    table = read_table(file, ["label", "youtube_id", "time_start", "time_end"])
    pairs = []
    for index, (label, name, *times) in enumerate(zip(*table.columns.values(), strict=True)):
        try:
            start, end = (int(float(seconds)) for seconds in times)
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"{table.place(index)}: {times[0]!r} and {times[1]!r} are not times in seconds."
            ) from error
        pairs.append((f"{name}_{start:06d}_{end:06d}", label))
    return _from_pairs(pairs, file, sorted({label for _, label in pairs}), str)


def read_ssv2(file: str | Path, part: str, split: int) -> RecognitionSet:
    """Something-Something V2 (`something-something-v2-validation.json`), classes from `…-labels.json` beside it."""
    labels_file = next(iter(sorted(Path(file).parent.glob("*labels.json"))), Path(file).with_name("labels.json"))
    numbers = read_json(labels_file, dict)
    classes = sorted(numbers, key=lambda name: int(numbers[name]))
    pairs = []
    for number, entry in enumerate(read_json(file, list)):
        place = f"{Path(file).name}, entry {number}"
        template = re.sub(r"[\[\]]", "", text_field(entry, "template", place))
        if template not in numbers:
            raise ValueError(f"{place}: the template {template!r} is not in {labels_file.name}.")
        pairs.append((text_field(entry, "id", place), template))
    return _from_pairs(pairs, file, classes, str)


def read_class_folders(folder: str | Path, part: str, split: int) -> RecognitionSet:
    """Any folder with a folder of videos for each class, below `train/` and `test/` where there are such folders."""
    root = _existing_folder(folder)
    prefix = f"{part}/" if (root / part).is_dir() else ""
    if not prefix and any((root / other).is_dir() for other in PARTS):
        raise ValueError(f"{folder} has no folder {part!r}, but one of {PARTS}; give both, or classes only.")
    class_folders = sorted(entry for entry in (root / prefix).iterdir() if entry.is_dir())
    pairs = [
        (f"{prefix}{file.relative_to(root / prefix).as_posix()}", class_folder.name)
        for class_folder in class_folders
        for file in sorted(class_folder.rglob("*"))
        if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file()
    ]
    return _from_pairs(pairs, root / prefix, [entry.name for entry in class_folders], _words)


# Each takes annotations (a file or a folder, see there), a part (train or test) and the number of the split.
READERS: dict[str, Callable[[str | Path, str, int], RecognitionSet]] = {
    "hmdb51": read_hmdb51,
    "ucf101": read_ucf101,
    "k400": read_kinetics,
    "ssv2": read_ssv2,
    "folder": read_class_folders,
}


def _words(name: str) -> str:
    """A class name as words: `brush_hair` and `BrushHair` to `brush hair`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return " ".join(spaced.replace("_", " ").lower().split())


def _from_pairs(
    pairs: list[tuple[str, str]], source: str | Path, classes: list[str], readable: Callable[[str], str]
) -> RecognitionSet:
    check_unique([video for video, _ in pairs], "video", source)
    if len(classes) < 2:
        raise ValueError(f"{source} has one class only, {classes[0]!r}; recognition needs at least two.")
    names = [readable(name) for name in classes]
    check_unique(names, "class", source)
    numbers = {name: number for number, name in enumerate(classes)}
    return RecognitionSet(
        classes=tuple(names),
        videos=tuple(video for video, _ in pairs),
        labels=tuple(numbers[name] for _, name in pairs),
    )


def _existing_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    return folder
