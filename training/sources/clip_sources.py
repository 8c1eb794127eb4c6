"""Clips and their transcripts from the data sets' published formats, for pre-training and for its evaluation.

An item is `{"pixel_values_videos": (T, 3, H, W), "transcripts": K strings in order of time, "video_id": str}`. Drawn
frames are uint8, those for evaluation float32, normalised.
Axes: T frames, H height, W width, K clips (transcripts) of a video.

For training an item is a function of (seed, epoch, index) alone, so it doesn't depend on worker processes or on where
a run was resumed. A `deterministic` source takes fixed places, middle frames and the middle of the picture instead.
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor
from training.sources.clip_sampling import ClipSampler, TranscriptError, read_clip
from training.sources.table_files import Table, read_header, read_table, resolve_inside
from training.transcripts.alignment import TimedWord, read_annotation, read_duration

MAX_ANNOTATION_BYTES = 64 * 2**20  # a day of speech; more is no transcript
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi")


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
        self.table = read_table(list_file, ["Name"])
        self.root = Path(root).resolve()
        self.sampler = ClipSampler(video_processor, num_clips, min_words)
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
        video, annotation = self.paths(index)
        duration, words = _read_annotation_file(annotation, self.table.place(index))
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        name = f"{self.table.place(index)}, {video.stem}"
        item = self.sampler.sample(video, duration=duration, words=words, name=name, generator=generator)
        return {**item, "video_id": self.table.columns["Name"][index]}


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
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        place = self.table.place(index)
        pixels = read_clip(self.video_processor, self.path(index), 0.0, float("inf"), place, generator)
        video_id = str(PurePosixPath(self._relative_path(index)).with_suffix(""))
        return {"pixel_values_videos": pixels, "transcripts": [self.captions[index]], "video_id": video_id}


def _check_root(root: Path, first_video: Path, table: Table) -> None:
    """A wrong root is one error at the start, not one for each row."""
    if not first_video.is_file():
        raise FileNotFoundError(f"{table.place(0)}: there is no video {first_video}; is {root} the right root?")


def _read_annotation_file(file: Path, place: str) -> tuple[float, list[TimedWord]]:
    """Duration in seconds and the cleaned-up words of a YT-Temporal annotation file."""
    try:
        if file.exists() and not file.is_file():
            raise ValueError("no regular file")  # a pipe would be read for ever
        if file.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ValueError(f"larger than {MAX_ANNOTATION_BYTES >> 20} MiB")
        annotation = json.loads(file.read_bytes())
        return read_duration(annotation), read_annotation(annotation)
    except FileNotFoundError as error:
        raise TranscriptError(f"{place}: there is no annotation {file}") from error
    except (ValueError, OSError, RecursionError) as error:
        raise TranscriptError(f"{place}: annotation {file} is broken: {error}") from error
