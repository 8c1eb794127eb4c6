"""The default corpus: generated videos of moving shapes with narration or captions, in the real datasets' formats.

A narrated video is a chain of events (`scene_drawing.py`) and what a narrator says about each (`narration.py`), in a
random order, so that only the frames tell which transcript belongs to which moment. A captioned clip shows one event;
its caption (`captions.py`) may leave attributes out. In the folder:

    corpus.json                               the parameters this corpus was made with
    train.csv, heldout.csv                    list files, column `Name`: <subset>/<id>
    videos/<subset>/data/<id>.mp4             H.264, subset train or heldout
    videos/<subset>/annotations/<id>.json     YT-Temporal's annotation format
    webvid/train.tsv, webvid/heldout.tsv      columns `caption` and `path`, one per attribute, and `group`
    webvid/videos/<subset>/<id>.mp4           one event each

Held-out clips with one `group` differ in a single attribute. Every video is a function of (seed, split, index) alone.
An interrupted run is continued; a folder made with other parameters is refused.
"""

import csv
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from processing.atomic_files import whole_file, write_whole
from processing.worker_processes import worker_context
from training.narrated_shapes.captions import ATTRIBUTES
from training.narrated_shapes.scene_drawing import draw_video
from training.narrated_shapes.scripts import (
    SPLITS,
    CorpusConfig,
    make_generator,
    plan_caption_clip,
    plan_narrated_video,
)

FORMAT_VERSION = 6  # raised with every change that makes other videos or words from the same parameters
KEYFRAME_SECONDS = 6.0


@dataclass(frozen=True)
class Corpus:
    """The places of a finished corpus' parts."""

    folder: Path
    config: CorpusConfig

    def list_file(self, split: str) -> Path:
        """CSV of the narrated videos of "train" or "heldout"; their root is `folder`."""
        return self.folder / f"{split}.csv"

    def caption_table(self, split: str) -> Path:
        """Tab-separated captions, paths and attributes of "train" or "heldout"; their root is `caption_root`."""
        return self.folder / "webvid" / f"{split}.tsv"

    @property
    def caption_root(self) -> Path:
        """The folder that the paths of a caption table start from."""
        return self.folder / "webvid"

    def training_texts(self) -> list[str]:
        """Return all text of the training split, cleaned up and as heard, to train a tokenizer on."""
        texts = []
        for index in range(self.config.num_train_videos):
            narrated = plan_narrated_video(self.config, "train", index)
            texts.append(" ".join(word.cleaned for word in narrated.words if word.cleaned))
            texts.append(" ".join(word.heard for word in narrated.words if word.heard and ";" not in word.heard))
        texts += [plan_caption_clip(self.config, "train", i).caption for i in range(self.config.num_train_captions)]
        return texts


def build_corpus(folder: str | Path, config: CorpusConfig, num_workers: int | None = None) -> Corpus:
    """Return the corpus of `config` in `folder`, generating whatever is missing.

    Args:
        folder: empty, absent, or holding (part of) the same corpus.
        config: its parameters.
        num_workers: processes that draw and encode; all cores unless given. The result does not depend on it.

    Raises:
        ValueError: the folder holds a corpus made with other parameters, or files that are not a corpus.
    """
    folder = Path(folder)
    _claim_folder(folder, config)
    corpus = Corpus(folder, config)
    todo = [(make, paths) for make, paths in _all_jobs(corpus) if not all(path.exists() for path in paths)]
    if todo:
        for parent in {path.parent for _, paths in todo for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
        _run_jobs([partial(make, *paths) for make, paths in todo], num_workers or os.cpu_count() or 1)
    for split in SPLITS:
        _write_tables(corpus, split)
    return corpus


def _all_jobs(corpus: Corpus) -> Iterator[tuple[partial, tuple[Path, ...]]]:
    """Yield what makes each video, and the files that it takes and writes, the last of them last."""
    counts = corpus.config
    for split in SPLITS:
        for index in range(counts.num_train_videos if split == "train" else counts.num_heldout_videos):
            subset = corpus.folder / "videos" / split
            name = _video_id(split, index)
            paths = (subset / "data" / f"{name}.mp4", subset / "annotations" / f"{name}.json")
            yield partial(_make_narrated_video, corpus.config, split, index), paths
        for index in range(counts.num_train_captions if split == "train" else counts.num_heldout_captions):
            path = corpus.caption_root / _caption_clip_path(split, index)
            yield partial(_make_caption_clip, corpus.config, split, index), (path,)


def _run_jobs(jobs: list[partial], num_workers: int) -> None:
    progress = {"total": len(jobs), "desc": "making narrated videos", "unit": "video"}
    if num_workers == 1:
        for job in tqdm(jobs, **progress):
            job()
        return
    context = worker_context("training.narrated_shapes.corpus")
    with ProcessPoolExecutor(min(num_workers, len(jobs)), mp_context=context) as pool:
        for _ in tqdm(pool.map(partial.__call__, jobs, chunksize=4), **progress):
            pass


def _claim_folder(folder: Path, config: CorpusConfig) -> None:
    """Record the parameters in the folder, or check those that are there."""
    wanted = {"format_version": FORMAT_VERSION, **asdict(config)}
    record = folder / "corpus.json"
    if not record.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and holds no corpus.json: give an empty or a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(record, json.dumps(wanted, indent=2))
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


def _video_id(split: str, index: int) -> str:
    return f"{split}{index:06d}"


def _caption_clip_path(split: str, index: int) -> str:
    return f"videos/{split}/{index:06d}.mp4"


def _make_narrated_video(config: CorpusConfig, split: str, index: int, video: Path, annotation: Path) -> None:
    narrated = plan_narrated_video(config, split, index)
    rng = make_generator(config, split, "narrated pixels", index)
    frames = draw_video(narrated.scene, narrated.events, fps=config.fps, image_size=config.image_size, rng=rng)
    with whole_file(video) as path:
        encode_video(frames, path, fps=config.fps)
    content = {
        "info": {"duration": round(len(frames) / config.fps, 3)},
        "subtitles": [{"word": word.heard, "time": word.time} for word in narrated.words],
        "denoised": [{"cleanasr": sentence} for sentence in narrated.sentences],
    }
    write_whole(annotation, json.dumps(content))


def _make_caption_clip(config: CorpusConfig, split: str, index: int, video: Path) -> None:
    clip = plan_caption_clip(config, split, index)
    rng = make_generator(config, split, "captioned pixels", index)
    frames = draw_video(clip.scene, [clip.event], fps=config.fps, image_size=config.image_size, rng=rng)
    with whole_file(video) as path:
        encode_video(frames, path, fps=config.fps)


def encode_video(frames: np.ndarray, path: Path, *, fps: int) -> None:
    """Write uint8 frames (T, H, W, 3) RGB as an H.264 mp4, the same bytes each time."""
    with av.open(str(path), "w", format="mp4") as container:
        # One thread: x264's output depends on their number, and the pool keeps all cores busy.
        # B-frames that nothing refers to, as in most files of the web; a reader can skip them.
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
    clips = [plan_caption_clip(config, split, index) for index in range(num_captions)]
    rows = [
        [clip.caption, _caption_clip_path(split, index), *clip.attributes.values(), clip.group]
        for index, clip in enumerate(clips)
    ]
    _write_table(corpus.caption_table(split), [["caption", "path", *ATTRIBUTES, "group"], *rows], delimiter="\t")


def _write_table(path: Path, rows: list[list[str]], delimiter: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
