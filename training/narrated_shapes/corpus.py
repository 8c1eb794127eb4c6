"""The default corpus: narrated videos of moving shapes, made on the spot, in the real data sets' formats.

    python -m training.narrated_shapes.corpus --folder outputs/narrated_shapes

A narrated video is a chain of events (`scene_drawing.py`) and what a narrator says about each (`narration.py`), in a
random order: nothing but watching tells which transcript belongs to which moment. In the folder:

    corpus.json                               the parameters this corpus was made with
    train.csv, heldout.csv                    list files, column `Name`: <subset>/<id>
    videos/<subset>/data/<id>.mp4             H.264, subset train or heldout
    videos/<subset>/annotations/<id>.json     YT-Temporal's annotation format
    webvid/train.tsv, webvid/heldout.tsv      columns `caption` and `path`
    webvid/videos/<subset>/<id>.mp4           one event each

Every video is a function of (seed, split, index) alone. An interrupted run is continued; a folder made with other
parameters is refused.
"""

import argparse
import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from training.narrated_shapes.narration import SpokenWord, describe, narrate
from training.narrated_shapes.scene_drawing import COLORS, MOTIONS, ROUND_SHAPES, SCENES, SHAPES, Event, draw_video
from training.runtime.process_pool import run_in_processes

FORMAT_VERSION = 1  # raise it with every change that makes other videos or words from the same parameters
SPLITS = ("train", "heldout")
NUM_EVENTS = 7
VIDEO_SECONDS = (28.0, 31.0)  # the longest span of four clips is 23 s, and it shall have room to move by an event
CAPTION_CLIP_SECONDS = (3.0, 5.0)
KEYFRAME_SECONDS = 6.0


@dataclass(frozen=True)
class CorpusConfig:
    """What decides the content of a corpus, to the last bit."""

    seed: int = 0
    num_train_videos: int = 1500
    num_heldout_videos: int = 256
    num_train_captions: int = 1000
    num_heldout_captions: int = 64
    image_size: int = 80
    """Height and width of all videos in pixels, even; 80 leaves a border for crops of 64."""
    fps: int = 4
    """Frames a second: as few as show every motion, because reading them is most of a small model's training time."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{field.name} must be an integer of at least 0, got {value!r}")
        if self.image_size < 32 or self.image_size % 2:
            raise ValueError(f"image_size must be even and at least 32, got {self.image_size}")
        if not 2 <= self.fps <= 60:
            raise ValueError(f"fps must be 2 to 60, got {self.fps}")


@dataclass(frozen=True)
class Corpus:
    """Where the parts of a finished corpus lie."""

    folder: Path
    config: CorpusConfig

    def list_file(self, split: str) -> Path:
        """CSV of the narrated videos of "train" or "heldout"; their root is `folder`."""
        return self.folder / f"{split}.csv"

    def caption_table(self, split: str) -> Path:
        """Tab-separated captions and paths of "train" or "heldout"; their root is `caption_root`."""
        return self.folder / "webvid" / f"{split}.tsv"

    @property
    def caption_root(self) -> Path:
        """The folder that the paths of a caption table start from."""
        return self.folder / "webvid"

    def training_texts(self) -> list[str]:
        """All text of the training split, cleaned up and as heard: what a tokenizer may learn from."""
        texts = []
        for index in range(self.config.num_train_videos):
            narrated = plan_narrated_video(self.config, "train", index)
            texts.append(" ".join(word.cleaned for word in narrated.words if word.cleaned))
            texts.append(" ".join(word.heard for word in narrated.words if word.heard and ";" not in word.heard))
        texts += [plan_caption_clip(self.config, "train", i).caption for i in range(self.config.num_train_captions)]
        return texts


@dataclass(frozen=True)
class NarratedVideo:
    """The script of a narrated video: `words` in order of time, `sentences` as an editor wrote them."""

    scene: str
    events: tuple[Event, ...]
    words: tuple[SpokenWord, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class CaptionClip:
    """The script of a captioned clip."""

    scene: str
    event: Event
    caption: str


def build_corpus(folder: str | Path, config: CorpusConfig, num_workers: int | None = None) -> Corpus:
    """The corpus of `config` in `folder`, made or completed there as far as it is missing.

    Args:
        folder: empty, absent, or holding (part of) the same corpus.
        config: its parameters.
        num_workers: processes that draw and encode; all cores unless given. The result doesn't depend on it.

    Raises:
        ValueError: the folder holds a corpus made with other parameters, or files that are no corpus.
    """
    folder = Path(folder)
    _claim_folder(folder, config)
    corpus = Corpus(folder, config)
    jobs = [job for job in _all_jobs(corpus) if not job.is_done()]
    if jobs:
        for parent in {path.parent for job in jobs for path in job.paths}:
            parent.mkdir(parents=True, exist_ok=True)
        _run_jobs(jobs, num_workers or os.cpu_count() or 1)
    for split in SPLITS:
        _write_tables(corpus, split)
    return corpus


@dataclass(frozen=True)
class _Job:
    """Files that one call of `make` writes, the last of them last."""

    make: Callable[..., None]
    config: CorpusConfig
    split: str
    index: int
    paths: tuple[Path, ...]

    def is_done(self) -> bool:
        return all(path.exists() for path in self.paths)

    def run(self) -> None:
        self.make(self.config, self.split, self.index, *self.paths)


def _all_jobs(corpus: Corpus) -> Iterator[_Job]:
    counts = corpus.config
    for split in SPLITS:
        for index in range(counts.num_train_videos if split == "train" else counts.num_heldout_videos):
            subset = corpus.folder / "videos" / split
            name = _video_id(split, index)
            paths = (subset / "data" / f"{name}.mp4", subset / "annotations" / f"{name}.json")
            yield _Job(_make_narrated_video, corpus.config, split, index, paths)
        for index in range(counts.num_train_captions if split == "train" else counts.num_heldout_captions):
            path = corpus.caption_root / _caption_clip_path(split, index)
            yield _Job(_make_caption_clip, corpus.config, split, index, (path,))


def _run_jobs(jobs: list[_Job], num_workers: int) -> None:
    done = run_in_processes(_Job.run, jobs, num_workers=min(num_workers, len(jobs)), on_death=_report_death)
    for _ in tqdm(done, total=len(jobs), desc="making narrated videos", unit="video"):
        pass


def _report_death(job: _Job) -> None:
    raise RuntimeError(f"the process that made {job.paths[0]} died: is there memory enough?")


def _claim_folder(folder: Path, config: CorpusConfig) -> None:
    """Records the parameters in the folder, or checks those that are there."""
    wanted = {"format_version": FORMAT_VERSION, **asdict(config)}
    record = folder / "corpus.json"
    if not record.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no corpus.json: give an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(record, json.dumps(wanted, indent=2).encode())
        return
    try:
        found = json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record} is not JSON ({error}): give another folder, or remove this one") from error
    if found != wanted:
        found = found if isinstance(found, dict) else {}
        keys = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        differences = ", ".join(f"{key} {found.get(key)!r} instead of {wanted.get(key)!r}" for key in keys)
        raise ValueError(f"{folder} holds another corpus: {differences}. Give another folder, or remove this one")


def plan_narrated_video(config: CorpusConfig, split: str, index: int) -> NarratedVideo:
    """The script of narrated video `index` of a split."""
    rng = _generator(config, split, "narrated", index)
    scene = str(rng.choice(list(SCENES)))
    duration = rng.uniform(*VIDEO_SECONDS)
    lengths = rng.uniform(0.9, 1.1, NUM_EVENTS)
    edges = np.concatenate([[0.0], np.cumsum(lengths / lengths.sum() * duration)])
    # All colours of a video differ, so that any two of its moments do.
    colors = rng.choice(list(COLORS), NUM_EVENTS, replace=False)
    events = [_draw_event(str(color), edges[i], edges[i + 1], rng) for i, color in enumerate(colors)]
    narrations = [narrate(event, scene, rng) for event in events]
    return NarratedVideo(
        scene=scene,
        events=tuple(events),
        words=tuple(word for narration in narrations for word in narration),
        sentences=tuple(" ".join(word.cleaned for word in narration if word.cleaned) for narration in narrations),
    )


def plan_caption_clip(config: CorpusConfig, split: str, index: int) -> CaptionClip:
    """The script of captioned clip `index` of a split."""
    rng = _generator(config, split, "captioned", index)
    scene = str(rng.choice(list(SCENES)))
    event = _draw_event(str(rng.choice(list(COLORS))), 0.0, rng.uniform(*CAPTION_CLIP_SECONDS), rng)
    return CaptionClip(scene=scene, event=event, caption=describe(event, scene, rng))


def _draw_event(color: str, start_seconds: float, end_seconds: float, rng: np.random.Generator) -> Event:
    shape = str(rng.choice(list(SHAPES)))
    motions = [motion for motion in MOTIONS if not (motion == "spin" and shape in ROUND_SHAPES)]
    return Event(color, shape, str(rng.choice(motions)), float(start_seconds), float(end_seconds))


def _generator(config: CorpusConfig, split: str, purpose: str, index: int) -> np.random.Generator:
    purposes = ("narrated", "captioned", "narrated pixels", "captioned pixels")
    return np.random.default_rng([config.seed, SPLITS.index(split), purposes.index(purpose), index])


def _video_id(split: str, index: int) -> str:
    return f"{split}{index:06d}"


def _caption_clip_path(split: str, index: int) -> str:
    return f"videos/{split}/{index:06d}.mp4"


def _make_narrated_video(config: CorpusConfig, split: str, index: int, video: Path, annotation: Path) -> None:
    narrated = plan_narrated_video(config, split, index)
    rng = _generator(config, split, "narrated pixels", index)
    frames = draw_video(narrated.scene, narrated.events, fps=config.fps, image_size=config.image_size, rng=rng)
    _write_atomically(video, partial(encode_video, frames, fps=config.fps))
    content = {
        "info": {"duration": round(len(frames) / config.fps, 3)},
        "subtitles": [{"word": word.heard, "time": word.time} for word in narrated.words],
        "denoised": [{"cleanasr": sentence} for sentence in narrated.sentences],
    }
    _write_atomically(annotation, json.dumps(content).encode())


def _make_caption_clip(config: CorpusConfig, split: str, index: int, video: Path) -> None:
    clip = plan_caption_clip(config, split, index)
    rng = _generator(config, split, "captioned pixels", index)
    frames = draw_video(clip.scene, [clip.event], fps=config.fps, image_size=config.image_size, rng=rng)
    _write_atomically(video, partial(encode_video, frames, fps=config.fps))


def encode_video(frames: np.ndarray, path: Path, *, fps: int) -> None:
    """Writes uint8 frames (T, H, W, 3) RGB as an H.264 mp4, the same bytes each time."""
    with av.open(str(path), "w", format="mp4") as container:
        # One thread: x264's output depends on how many there are, and the pool keeps all cores busy already.
        # B-frames that nothing refers to, as in most files of the web: a good reader skips them.
        options = {"preset": "ultrafast", "crf": "26", "bf": "3", "b-pyramid": "none", "threads": "1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = round(KEYFRAME_SECONDS * fps)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def _write_tables(corpus: Corpus, split: str) -> None:
    config = corpus.config
    num_videos = config.num_train_videos if split == "train" else config.num_heldout_videos
    num_captions = config.num_train_captions if split == "train" else config.num_heldout_captions
    names = [[f"{split}/{_video_id(split, index)}"] for index in range(num_videos)]
    _write_table(corpus.list_file(split), [["Name"], *names], delimiter=",")
    rows = [
        [plan_caption_clip(config, split, index).caption, _caption_clip_path(split, index)]
        for index in range(num_captions)
    ]
    _write_table(corpus.caption_table(split), [["caption", "path"], *rows], delimiter="\t")


def _write_table(path: Path, rows: list[list[str]], delimiter: str) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)

    path.parent.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, write)


def _write_atomically(path: Path, content: bytes | Callable[[Path], None]) -> None:
    """Writes bytes, or what `content` writes to the path it is given, so that `path` is complete or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make a corpus of narrated videos of moving shapes (H.264 mp4, YT-Temporal and WebVid formats).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, required=True, help="where; empty, new, or holding part of this corpus")
    help_texts = {
        "seed": "another seed is another corpus",
        "num_train_videos": "narrated videos to train on",
        "num_heldout_videos": "narrated videos to evaluate on",
        "num_train_captions": "captioned clips to train on",
        "num_heldout_captions": "captioned clips to evaluate on",
        "image_size": "height and width in pixels",
        "fps": "frames a second",
    }
    for name, text in help_texts.items():
        parser.add_argument(f"--{name}", type=int, default=getattr(CorpusConfig, name), help=text)
    parser.add_argument("--num_workers", type=int, help="processes; all cores unless given")
    return parser.parse_args()


def main() -> None:
    arguments = vars(_parse_arguments())
    folder, num_workers = arguments.pop("folder"), arguments.pop("num_workers")
    corpus = build_corpus(folder, CorpusConfig(**arguments), num_workers)
    print(f"{corpus.folder}: {corpus.list_file('train').name}, {corpus.list_file('heldout').name}, webvid/")


if __name__ == "__main__":
    main()
