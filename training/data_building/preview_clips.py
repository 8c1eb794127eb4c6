"""Draw a picture sheet of what pre-training will see: frames as drawn and cropped, transcripts under their clips.

    python -m training.data_building.preview_clips '{format: built, dataset: my_dataset, videos: my_videos}'
    python -m training.data_building.preview_clips '{format: shards, shards: https://host/my_shards}' --num_videos 12

The source is written as in a configuration's `sources`.
"""

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
import yaml

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.runtime.number_types import at_least
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.clip_sampling import TranscriptError
from training.sources.formats import open_source

CHARACTERS_PER_ROW = 190
MAX_LINES = 6


def draw_preview(clips: ClipDataset, keys: list[ClipKey], path: Path) -> int:
    """Write a PNG sheet with one row per item, or with its error, and return the number of errors.

    Args:
        clips: the data set.
        keys: of the items shown.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.1 * len(keys)), layout="constrained", facecolor="white")
    num_broken = 0
    for axes, key in zip(figure.subplots(len(keys), 1, squeeze=False)[:, 0], keys, strict=True):
        axes.set_axis_off()
        try:
            item = clips[key]
        except (VideoReadingError, TranscriptError) as error:
            num_broken += 1
            axes.text(0, 0.5, textwrap.fill(_escape(str(error)), CHARACTERS_PER_ROW), color="firebrick", va="center")
            continue
        _draw_item(axes, key.index, item)
    figure.savefig(path, format="png", dpi=100)
    return num_broken


def _draw_item(axes, index: int, item: dict) -> None:
    num_frames, height, width, _ = item["frames"].shape
    strip = item["frames"].transpose(0, 1).reshape(height, num_frames * width, 3)
    axes.imshow(strip.numpy(), interpolation="nearest")
    axes.set_title(_escape(f"{index}: {item['video_id']}"), loc="left", fontsize=9)
    clip_width = num_frames * width / len(item["transcripts"])
    num_characters = CHARACTERS_PER_ROW // len(item["transcripts"])
    for place, transcript in enumerate(item["transcripts"]):
        axes.axvline(place * clip_width - 0.5, color="white", linewidth=4)
        lines = textwrap.wrap(_escape(transcript), num_characters, max_lines=MAX_LINES, placeholder=" …")
        axes.text(place * clip_width, height * 1.05, "\n".join(lines), va="top", fontsize=8)


def _escape(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign would start a formula


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw a picture sheet of what pre-training will see.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("source", help="a mapping as in a configuration's `sources`, in YAML")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="the picture")
    parser.add_argument("--num_videos", type=at_least(1), default=6, help="rows of the sheet, chosen at random")
    parser.add_argument("--num_clips", type=at_least(1), default=4, help="clips per video")
    parser.add_argument("--min_words", type=at_least(1), default=3, help="words that each clip must have")
    parser.add_argument("--epoch", type=at_least(0), default=0, help="every epoch draws other clips")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the choice and of all draws")
    parser.add_argument("--crop_size", type=at_least(1), default=112, help="pixels of a frame's side")
    return parser.parse_args()


def main() -> None:
    arguments = _parse_arguments()
    try:
        videos = open_source(yaml.safe_load(arguments.source))
    except (ValueError, FileNotFoundError, yaml.YAMLError) as error:
        sys.exit(f"error: {error}")
    settings = {"num_clips": arguments.num_clips, "min_words": arguments.min_words, "seed": arguments.seed}
    clips = ClipDataset(videos, TVTSv2VideoProcessor(crop_size=arguments.crop_size), **settings)
    number = min(arguments.num_videos, len(clips))
    indices = np.sort(np.random.default_rng(arguments.seed).choice(len(clips), number, replace=False)).tolist()
    num_broken = draw_preview(clips, [ClipKey(arguments.epoch, index) for index in indices], arguments.output)
    print(f"{arguments.output}: {number} of {len(clips)} videos, {num_broken} of them unusable")


if __name__ == "__main__":
    main()
