"""Captions and videos of retrieval benchmarks, read from the files as published.

Axes: M texts, V videos.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation.annotations.files import check_unique, read_json, read_lines, split_checksum, text_field
from training.sources.table_files import read_table

LSMDC_COLUMNS = ("clip", "start_aligned", "end_aligned", "start_extracted", "end_extracted", "sentence")


@dataclass(frozen=True)
class RetrievalSet:
    """A split for retrieval.

    Attributes:
        videos: V names as annotated, each once.
        texts: M captions.
        video_of_text: M indices into `videos`.
    """

    videos: tuple[str, ...]
    texts: tuple[str, ...]
    video_of_text: tuple[int, ...]

    @property
    def checksum(self) -> str:
        """Of the split as read."""
        return split_checksum(self.videos, self.texts, self.video_of_text)


def read_msrvtt(file: str | Path) -> RetrievalSet:
    """MSR-VTT 1k-A (`MSRVTT_JSFUSION_test.csv`): columns key, vid_key, video_id, sentence; one caption per video."""
    rows = _read_pairs(file, "video_id", "sentence")
    check_unique([video for video, _ in rows], "video", file)
    return _from_pairs(rows, file)


def read_didemo(file: str | Path) -> RetrievalSet:
    """DiDeMo (`test_data.json`): all descriptions of a video, in the order of the file, joined to one paragraph."""
    entries = read_json(file, list)
    identifiers: list[str] = []
    paragraphs: dict[str, list[str]] = {}
    for number, entry in enumerate(entries):
        place = f"{Path(file).name}, entry {number}"
        identifiers.append(text_field(entry, "annotation_id", place))
        paragraphs.setdefault(text_field(entry, "video", place), []).append(text_field(entry, "description", place))
    check_unique(identifiers, "annotation_id", file)
    return _from_pairs([(video, " ".join(sentences)) for video, sentences in paragraphs.items()], file)


def read_lsmdc(file: str | Path) -> RetrievalSet:
    """LSMDC (`LSMDC16_challenge_1000_publictect.csv`): tab-separated, no header: clip, four times, sentence.

    The first line is a clip like the others; readers that take it for a header evaluate on 999.
    """
    rows = []
    for place, line in read_lines(file):
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) != len(LSMDC_COLUMNS):
            raise ValueError(
                f"{place}: {len(fields)} fields instead of {len(LSMDC_COLUMNS)} ({', '.join(LSMDC_COLUMNS)})"
            )
        rows.append((fields[0], fields[-1]))
    check_unique([video for video, _ in rows], "clip", file)
    return _from_pairs(rows, file)


def read_caption_table(file: str | Path) -> RetrievalSet:
    """Any table with the columns video and caption, .csv or tab-separated .tsv or .txt; several rows per video."""
    rows = _read_pairs(file, "video", "caption")
    check_unique([f"{caption} ({video})" for video, caption in rows], "caption (video)", file)
    return _from_pairs(rows, file)


READERS: dict[str, Callable[[str | Path], RetrievalSet]] = {
    "msrvtt": read_msrvtt,
    "didemo": read_didemo,
    "lsmdc": read_lsmdc,
    "table": read_caption_table,
}


def _read_pairs(file: str | Path, *column_names: str) -> list[tuple[str, ...]]:
    return list(zip(*read_table(file, list(column_names)).columns.values(), strict=True))


def _from_pairs(pairs: list[tuple[str, str]], file: str | Path) -> RetrievalSet:
    """A set from (video, text) pairs; videos in the order in which they first appear."""
    videos = {video: number for number, video in enumerate(dict.fromkeys(video for video, _ in pairs))}
    if len(videos) < 2:
        raise ValueError(f"{file} has {len(videos)} video(s) in it; retrieval needs at least two to choose from.")
    return RetrievalSet(
        videos=tuple(videos),
        texts=tuple(text for _, text in pairs),
        video_of_text=tuple(videos[video] for video, _ in pairs),
    )
