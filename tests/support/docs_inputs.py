"""What the commands of the README and of docs/ find in the folder they are run in: small, but the real thing.

A page that speaks of another file or folder needs it made here, under the very name that the page uses.
"""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks.evaluation.embeddings.embedding_file import write_embedding_file
from tests.support.deterministic_weights import official_state_dict
from tests.support.paths import ROOT
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.speech import TONE, write_sound_video, write_tiny_whisper
from tests.support.video_files import write_video
from training.narrated_shapes.corpus import CorpusConfig, build_corpus

CLASSES = ("one", "two")
MSRVTT_HEADER = "key,vid_key,video_id,sentence\n"


def make_inputs(place: Path) -> None:
    """Fills the folder."""
    _make_models(place)
    _make_videos(place)
    _make_annotations(place)
    _make_narrated_videos(place)
    # Commands name the recipes by their place in the repository.
    for folder in ("training", "benchmarks"):
        (place / folder).symlink_to(ROOT / folder)


def _make_models(place: Path) -> None:
    write_small_folder(place / "model")
    write_small_folder(place / "outputs" / "pretrain")
    write_tiny_whisper(place / "openai" / "whisper-small")
    small_processor().tokenizer.save_pretrained(place / "openai" / "clip-vit-base-patch16")
    torch.save(official_state_dict("B"), place / "TVTSv2_B_16.pth")  # the release's names, at a test's sizes


def _make_videos(place: Path) -> None:
    write_video(place / "video.mp4", num_frames=30)
    clip = place / "outputs" / "narrated_shapes" / "seed42" / "webvid" / "videos" / "heldout" / "000000.mp4"
    clip.parent.mkdir(parents=True)
    shutil.copyfile(place / "video.mp4", clip)
    names = [f"video{index}.mp4" for index in range(4)]
    (place / "videos").mkdir()
    for index, name in enumerate(names):
        write_video(place / "videos" / name, num_frames=12 + 8 * index, height=32 + 8 * index)
        folder = place / "actions" / CLASSES[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / "videos" / name, folder / name)
    texts = ["red circle", "blue square", "green star", "a person moves"]
    (place / "list.csv").write_text("path\n" + "".join(f"videos/{name}\n" for name in names))
    pairs = "".join(f"videos/{name},{text}\n" for name, text in zip(names, texts, strict=True))
    (place / "pairs.csv").write_text(f"path,caption\n{pairs}")
    rows = "".join(f"ret{i},msr{i},video{i},{text}\n" for i, text in enumerate(texts))
    (place / "MSRVTT_JSFUSION_test.csv").write_text(MSRVTT_HEADER + rows)


def _make_annotations(place: Path) -> None:
    """The four videos in the published format of every benchmark, a split in folders, and embeddings made elsewhere."""
    names = [f"video{index}" for index in range(4)]
    texts = [f"a {color} thing" for color in ("red", "green", "blue", "dark")]
    pairs = list(zip(names, texts, strict=True))
    entries = [
        {"annotation_id": i, "video": f"{name}.mp4", "description": text} for i, (name, text) in enumerate(pairs)
    ]
    (place / "test_data.json").write_text(json.dumps(entries))
    times = "\t".join(["00:00:00"] * 4)
    lines = "".join(f"{name}\t{times}\t{text}\n" for name, text in pairs)
    (place / "LSMDC16_challenge_1000_publictect.csv").write_text(lines)
    (place / "captions.csv").write_text("video,caption\n" + "".join(f"{name},{text}\n" for name, text in pairs))
    (place / "testTrainMulti_7030_splits").mkdir()
    (place / "ucfTrainTestlist").mkdir()
    (place / "ucfTrainTestlist" / "classInd.txt").write_text("1 One\n2 Two\n")
    lines = "".join(f"{CLASSES[index % 2].title()}/{name}.avi\n" for index, name in enumerate(names))
    (place / "ucfTrainTestlist" / "testlist01.txt").write_text(lines)
    for index, label in enumerate(CLASSES):
        file = place / "testTrainMulti_7030_splits" / f"{label}_test_split1.txt"
        file.write_text("".join(f"{name}.avi 2 \n" for name in names[index::2]))
    lines = "".join(f"{CLASSES[index % 2]},{name},0,10\n" for index, name in enumerate(names))
    (place / "val.csv").write_text("label,youtube_id,time_start,time_end\n" + lines)
    choices = [{"clip_name": f"{name}.webm", "options": texts, "answer": index} for index, name in enumerate(names)]
    (place / "val.jsonl").write_text("\n".join(map(json.dumps, choices)))
    for index, (part, label) in enumerate(itertools.product(("train", "test"), CLASSES)):
        folder = place / "split_actions" / part / label
        folder.mkdir(parents=True)
        for number in range(2):
            shutil.copyfile(place / "videos" / f"{names[index]}.mp4", folder / f"{part}{label}{number}.mp4")
    sentences = [line.split(",")[3] for line in (place / "MSRVTT_JSFUSION_test.csv").read_text().splitlines()[1:]]
    rows = np.eye(4)
    write_embedding_file(
        place / "embeddings.safetensors", dict(zip(names, rows, strict=True)), dict(zip(sentences, rows, strict=True))
    )


def _make_narrated_videos(place: Path) -> None:
    """Narrated videos, each with a transcript of its name, and one with sound instead."""
    config = CorpusConfig(
        num_train_videos=5, num_heldout_videos=0, num_train_captions=0, num_heldout_captions=0, image_size=160
    )
    source = build_corpus(place / "corpus", config, num_workers=1).folder / "videos" / "train"
    shutil.copytree(source / "data", place / "my_videos")
    for file in (source / "annotations").iterdir():
        shutil.copyfile(file, place / "my_videos" / file.name)
    write_sound_video(place / "my_videos" / "talk.mp4", TONE[:80_000])
