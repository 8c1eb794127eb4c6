"""Clips and their transcripts from the data sets' published formats, for pre-training and for its evaluation.

An item is `{"pixel_values_videos": float32 (T, 3, H, W), "transcripts": K strings in order of time, "video_id": str}`.
Axes: T frames, H height, W width, K clips (transcripts) of a video.

For training an item is a function of (seed, epoch, index) alone, so it doesn't depend on worker processes or on where
a run was resumed. A `deterministic` source takes fixed places, middle frames and the middle of the picture instead.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor, VideoReadingError, interval_midpoint_indices, read_video
from training.clip_spans import ClipSpan, draw_span, fixed_spans
from training.table_files import Table, read_header, read_table, resolve_inside
from training.transcripts import TimedWord, read_annotation, read_duration, words_in_window

MAX_DRAWS = 20
MAX_ANNOTATION_BYTES = 64 * 2**20  # a day of speech; more is no transcript
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi")


class TranscriptError(ValueError):
    """A video's transcript is missing, broken, or has too few words for its clips."""


class YTTemporalClips(Dataset):
    """K clips a video with the words spoken in each, from YT-Temporal's layout.

    Videos lie at `videos/<subset>/data/<id>.mp4` under `root`, annotations at `videos/<subset>/annotations/<id>.json`,
    and the list file has a column `Name` of `<subset>/<id>`.

    Args:
        list_file: CSV or tab-separated.
        root: the folder that holds `videos`.
        video_processor: makes the frames; its `num_frames` is T.
        num_clips: K.
        min_words: a clip with fewer words makes the whole span be drawn again.
        seed: of all draws.
        deterministic: the same middle span of each video every time, for evaluation.

    Raises:
        FileNotFoundError, ValueError: the list file is missing or broken, a name leads out of `root`, or `root` has
            not got the first video.
    """

    def __init__(
        self,
        list_file: str | Path,
        root: str | Path,
        *,
        video_processor: TVTSv2VideoProcessor,
        num_clips: int = 4,
        min_words: int = 3,
        seed: int = 0,
        deterministic: bool = False,
    ):
        if num_clips < 1 or min_words < 1:
            raise ValueError(f"num_clips and min_words must be at least 1, got {num_clips} and {min_words}")
        self.table = read_table(list_file, ["Name"])
        self.root = Path(root).resolve()
        self.video_processor = video_processor
        self.num_clips, self.min_words = num_clips, min_words
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic
        _check_root(self.root, self.paths(0)[0], self.table)

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Other draws from here on; the Trainer calls it."""
        self.epoch = epoch

    def paths(self, index: int) -> tuple[Path, Path]:
        """The video and the annotation file of a row."""
        name, place = self.table.columns["Name"][index], self.table.place(index)
        subset, slash, video_id = name.removesuffix(".mp4").partition("/")
        if not (subset and slash and video_id) or "/" in video_id:
            raise ValueError(f"{place}: column 'Name' should be <subset>/<id>, got {name!r}")
        files = (f"videos/{subset}/data/{video_id}.mp4", f"videos/{subset}/annotations/{video_id}.json")
        return resolve_inside(self.root, files[0], place), resolve_inside(self.root, files[1], place)

    def __getitem__(self, index: int) -> dict:
        """The item of row `index`.

        Raises:
            VideoReadingError: the video is missing or cannot be read.
            TranscriptError: the annotation is missing or broken, or no span with enough words was found.
        """
        place = self.table.place(index)
        video, annotation = self.paths(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        duration, words = _read_annotation_file(annotation, place)
        span, transcripts = self._choose_span(duration, words, generator, f"{video.stem} ({place})")
        pixels = _read_clip(
            self.video_processor,
            video,
            place,
            span.start_seconds,
            span.end_seconds,
            None if self.deterministic else generator,
        )
        return {
            "pixel_values_videos": pixels,
            "transcripts": transcripts,
            "video_id": self.table.columns["Name"][index],
        }

    def _choose_span(
        self, duration: float, words: Sequence[TimedWord], generator: np.random.Generator, name: str
    ) -> tuple[ClipSpan, list[str]]:
        try:
            if self.deterministic:
                spans = list(fixed_spans(duration, self.num_clips))
            else:
                spans = (draw_span(duration, self.num_clips, generator) for _ in range(MAX_DRAWS))
            for span in spans:
                transcripts = [words_in_window(words, *window) for window in span.windows()]
                if min(len(transcript.split()) for transcript in transcripts) >= self.min_words:
                    return span, transcripts
        except ValueError as error:
            raise TranscriptError(f"{name}: {error}") from error
        raise TranscriptError(
            f"{name}: no {self.num_clips} clips with at least {self.min_words} words each were found among "
            f"{len(words)} words in {duration:.1f} s"
        )


class WebVidClips(Dataset):
    """Whole videos with one caption each, from WebVid's formats.

    The table has the columns `caption` and `path` (of the release), or `videoid`, `page_dir` and `name` (as WebVid was
    published: the caption is `name`, the path `<page_dir>/<videoid>.mp4`).

    Args:
        table: comma-separated (.csv) or tab-separated (.tsv).
        root: the folder that the paths start from.
        video_processor, seed, deterministic: as in `YTTemporalClips`.

    Raises:
        FileNotFoundError, ValueError: the table is missing or broken, a path leads out of `root`, or `root` has not got
            the first video.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path,
        *,
        video_processor: TVTSv2VideoProcessor,
        seed: int = 0,
        deterministic: bool = False,
    ):
        is_published_form = "videoid" in read_header(table)
        self.table = read_table(table, ["name", "page_dir", "videoid"] if is_published_form else ["caption", "path"])
        self.captions = self.table.columns["name" if is_published_form else "caption"]
        self.root = Path(root).resolve()
        self.video_processor = video_processor
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic
        _check_root(self.root, self.path(0), self.table)

    def __len__(self) -> int:
        return len(self.table)

    def set_epoch(self, epoch: int) -> None:
        """Other draws from here on; the Trainer calls it."""
        self.epoch = epoch

    def path(self, index: int) -> Path:
        """The video file of a row."""
        return resolve_inside(self.root, self._relative_path(index), self.table.place(index))

    def _relative_path(self, index: int) -> str:
        columns = self.table.columns
        if "path" not in columns:
            return f"{columns['page_dir'][index]}/{columns['videoid'][index]}.mp4"
        path = columns["path"][index]
        return path if PurePosixPath(path).suffix.lower() in VIDEO_SUFFIXES else f"{path}.mp4"

    def __getitem__(self, index: int) -> dict:
        """The item of row `index`.

        Raises:
            VideoReadingError: the video is missing or cannot be read.
        """
        generator = np.random.default_rng([self.seed, self.epoch, index])
        pixels = _read_clip(
            self.video_processor,
            self.path(index),
            self.table.place(index),
            0.0,
            float("inf"),
            None if self.deterministic else generator,
        )
        video_id = str(PurePosixPath(self._relative_path(index)).with_suffix(""))
        return {"pixel_values_videos": pixels, "transcripts": [self.captions[index]], "video_id": video_id}


def _check_root(root: Path, first_video: Path, table: Table) -> None:
    """A wrong root is one error at the start, not one for each row."""
    if not first_video.is_file():
        raise FileNotFoundError(f"{table.place(0)}: there is no video {first_video}; is {root} the right root?")


def _read_annotation_file(file: Path, place: str) -> tuple[float, list[TimedWord]]:
    """Duration in seconds and the cleaned-up words of a YT-Temporal annotation file."""
    try:
        if file.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ValueError(f"larger than {MAX_ANNOTATION_BYTES >> 20} MiB")
        annotation = json.loads(file.read_bytes())
        return read_duration(annotation), read_annotation(annotation)
    except FileNotFoundError as error:
        raise TranscriptError(f"{place}: there is no annotation {file}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise TranscriptError(f"{place}: annotation {file} is broken: {error}") from error


def _read_clip(
    video_processor: TVTSv2VideoProcessor,
    video: Path,
    place: str,
    start_seconds: float,
    end_seconds: float,
    generator: np.random.Generator | None,
) -> torch.Tensor:
    """Frames of [start, end) seconds: random ones, cropped at random, or without a generator middle ones, centred."""
    if not video.is_file():
        raise VideoReadingError(f"{place}: there is no video {video}")
    try:
        if generator is not None:
            return video_processor.sample_training_clip(video, start_seconds, end_seconds, generator=generator)

        def middle_frames(metadata):
            first, end = metadata.frame_span(start_seconds, end_seconds)
            return first + interval_midpoint_indices(end - first, video_processor.num_frames)

        frames, _ = read_video(video, middle_frames)
        return video_processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
    except VideoReadingError:
        raise
    except ValueError as error:
        raise VideoReadingError(f"{place}: video {video}: {error}") from error
