"""Draw a picture sheet of what pre-training will see: frames as drawn and cropped, transcripts under their clips.

    python -m training.data_building.preview_clips '{format: built, dataset: my_dataset, videos: my_videos}'
    python -m training.data_building.preview_clips '{format: shards, shards: https://host/my_shards}' --num_videos 12

The source is written as in a configuration's `sources`. For a built dataset, examples of the speech that its rules
left out follow below.
"""

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.data_building.video_checks import DUPLICATE_FRAMES, DUPLICATE_WORDS, NO_ROOM_BETWEEN_CUTS, WRONG_LANGUAGE
from training.runtime.command_errors import STARTS_ANEW, OneLineParser, at_least, one_line_errors
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.clip_sampling import TranscriptError, read_clip
from training.sources.formats import open_source

CHARACTERS_PER_ROW = 190
MAX_LINES = 6
LEFT_OUT_PER_RULE = 2
LEFT_OUT_SECONDS = 4.0  # shown from the start of a passage


def draw_preview(clips: ClipDataset, keys: list[ClipKey], path: Path, left_out: Sequence[dict] = ()) -> int:
    """Write a PNG sheet with one row per item, or with its error, and return the number of errors.

    Args:
        clips: the dataset.
        keys: of the items shown.
        path: of the PNG file.
        left_out: passages that are not in the dataset, see `read_left_out`.
    """
    from matplotlib.figure import Figure

    num_rows, num_broken = len(keys) + len(left_out), 0
    figure = Figure(figsize=(15, 2.1 * num_rows), layout="constrained", facecolor="white")
    rows = figure.subplots(num_rows, 1, squeeze=False)[:, 0]
    for axes, shown in zip(rows, [*keys, *left_out], strict=True):
        axes.set_axis_off()
        is_item = isinstance(shown, ClipKey)
        try:
            _draw_item(axes, shown, clips) if is_item else _draw_passage(axes, shown, clips)
        except (VideoReadingError, TranscriptError) as error:
            num_broken += is_item
            axes.text(0, 0.5, textwrap.fill(_escape(str(error)), CHARACTERS_PER_ROW), color="firebrick", va="center")
    figure.savefig(path, format="png", dpi=100)
    return num_broken


def _draw_passage(axes, passage: dict, clips: ClipDataset) -> None:
    """Draw what is seen while a passage that was left out is spoken, and its words."""
    window = (max(0.0, passage["time"]), max(0.0, passage["time"]) + LEFT_OUT_SECONDS)
    frames = read_clip(clips.video_processor, passage["file"], window, passage["video"], None)
    _draw_strip(axes, frames, f"left out, {passage['rule']}: {passage['video']} at {passage['time']:.1f} s")
    lines = textwrap.wrap(_escape(passage["text"]), CHARACTERS_PER_ROW, max_lines=MAX_LINES, placeholder=" …")
    axes.text(0, frames.shape[1] * 1.05, "\n".join(lines), va="top", fontsize=8, color="firebrick")


def read_left_out(source: dict) -> list[dict]:
    """Return examples of what the rules left out of a built dataset, by its report: rule, file, video, time, text.

    Of the rules that reject whole videos, those about what is said and seen: the text says why.
    """
    if source["format"] != "built":
        return []
    report = json.loads((Path(source["dataset"]) / "report.json").read_text(encoding="utf-8"))
    examples = {rule: found["examples"] for rule, found in report["speech_left_out"].items()}
    for reason in (DUPLICATE_FRAMES, DUPLICATE_WORDS, WRONG_LANGUAGE, NO_ROOM_BETWEEN_CUTS):
        entries = report["rejected"].get(reason, [])
        examples[reason] = [{"video": entry["video"], "time": 0.0, "text": entry["detail"]} for entry in entries]
    return [
        {"rule": rule, "file": Path(source["videos"], example["video"]), **example}
        for rule, found in examples.items()
        for example in found[:LEFT_OUT_PER_RULE]
    ]


def _draw_strip(axes, frames: torch.Tensor, title: str) -> None:
    num_frames, height, width, _ = frames.shape
    strip = frames.transpose(0, 1).reshape(height, num_frames * width, 3)
    axes.imshow(strip.numpy(), interpolation="nearest")
    axes.set_title(_escape(title), loc="left", fontsize=9)


def _draw_item(axes, key: ClipKey, clips: ClipDataset) -> None:
    item = clips[key]
    num_frames, height, width, _ = item["frames"].shape
    _draw_strip(axes, item["frames"], f"{key.index}: {item['video_id']}")
    clip_width = num_frames * width / len(item["transcripts"])
    num_characters = CHARACTERS_PER_ROW // len(item["transcripts"])
    for place, transcript in enumerate(item["transcripts"]):
        axes.axvline(place * clip_width - 0.5, color="white", linewidth=4)
        lines = textwrap.wrap(_escape(transcript), num_characters, max_lines=MAX_LINES, placeholder=" …")
        axes.text(place * clip_width, height * 1.05, "\n".join(lines), va="top", fontsize=8)


def _escape(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign would start a formula


def _parse_arguments() -> argparse.Namespace:
    parser = OneLineParser(description="Draw a picture sheet of what pre-training will see.")
    parser.add_argument("source", help="a mapping as in a configuration's `sources`, in YAML")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="the picture")
    parser.add_argument("--num_videos", type=at_least(1), default=6, help="rows of the sheet, chosen at random")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips per video")
    parser.add_argument("--min_words", type=at_least(1), default=3, help="words that each clip must have")
    parser.add_argument("--epoch", type=at_least(0), default=0, help="every epoch draws other clips")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the choice and of all draws")
    parser.add_argument("--crop_size", type=at_least(1), default=112, help="pixels of a frame's side")
    return parser.parse_args()


@one_line_errors(ValueError, OSError, yaml.YAMLError, after_interruption=STARTS_ANEW)
def main() -> None:
    arguments = _parse_arguments()
    source = yaml.safe_load(arguments.source)
    videos, left_out = open_source(source), read_left_out(source)
    settings = {"num_clips": arguments.num_clips, "min_words": arguments.min_words, "seed": arguments.seed}
    clips = ClipDataset(videos, TVTSv2VideoProcessor(crop_size=arguments.crop_size), **settings)
    number = min(arguments.num_videos, len(clips))
    indices = np.sort(np.random.default_rng(arguments.seed).choice(len(clips), number, replace=False)).tolist()
    keys = [ClipKey(arguments.epoch, index) for index in indices]
    num_broken = draw_preview(clips, keys, arguments.output, left_out)
    print(f"{arguments.output}: {number} of {len(clips)} videos, {num_broken} of them unusable")


if __name__ == "__main__":
    main()
