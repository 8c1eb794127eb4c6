"""A picture sheet of what pre-training will see: frames as drawn and cropped, transcripts under their clips.

python -m training.data_building.preview_clips built footage_dataset --videos footage
python -m training.data_building.preview_clips yt_temporal train.csv --root data/YTTemporal
python -m training.data_building.preview_clips webvid results_2M_train.csv --root data/WebVid
python -m training.data_building.preview_clips howto100m HowTo100M_v1.csv --captions caption.json --videos data
"""

import argparse
import textwrap
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.sources.built_dataset import BuiltClips
from training.sources.clip_sampling import TranscriptError
from training.sources.clip_sources import WebVidClips, YTTemporalClips
from training.sources.howto100m import HowTo100MClips

CHARACTERS_PER_FIGURE = 190
MAX_LINES = 6


def draw_preview(source: Dataset, indices: list[int], path: str | Path) -> int:
    """The number of items that could not be read; writes a PNG sheet with one row an item, or with its error.

    Args:
        source: a clip source; its video processor's mean and std are undone.
        indices: of the items shown.
        path: of the PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 2.1 * len(indices)), layout="constrained", facecolor="white")
    num_broken = 0
    for axes, index in zip(figure.subplots(len(indices), 1, squeeze=False)[:, 0], indices, strict=True):
        axes.set_axis_off()
        try:
            item = source[index]
        except (VideoReadingError, TranscriptError) as error:
            num_broken += 1
            axes.text(0, 0.5, textwrap.fill(_escape(str(error)), CHARACTERS_PER_FIGURE), color="firebrick", va="center")
            continue
        _draw_item(axes, index, item, _processor(source))
    figure.savefig(path, format="png", dpi=100)
    return num_broken


def _draw_item(axes, index: int, item: dict, video_processor: TVTSv2VideoProcessor) -> None:
    frames = item["pixel_values_videos"]
    if frames.is_floating_point():
        mean, std = (
            torch.tensor(values).view(3, 1, 1) for values in (video_processor.image_mean, video_processor.image_std)
        )
        frames = (frames * std + mean).clamp(0, 1)
    num_frames, _, height, width = frames.shape
    axes.imshow(frames.permute(2, 0, 3, 1).reshape(height, num_frames * width, 3).numpy(), interpolation="nearest")
    axes.set_title(_escape(f"{index}: {item['video_id']}"), loc="left", fontsize=9)
    clip_width = num_frames * width / len(item["transcripts"])
    num_characters = CHARACTERS_PER_FIGURE // len(item["transcripts"])
    for place, transcript in enumerate(item["transcripts"]):
        axes.axvline(place * clip_width - 0.5, color="white", linewidth=4)
        lines = textwrap.wrap(_escape(transcript), num_characters, max_lines=MAX_LINES, placeholder=" …")
        axes.text(place * clip_width, height * 1.05, "\n".join(lines), va="top", fontsize=8)


def _escape(text: str) -> str:
    return text.replace("$", r"\$")  # a dollar sign would start a formula


def _processor(source: Dataset) -> TVTSv2VideoProcessor:
    return source.video_processor if isinstance(source, WebVidClips) else source.sampler.video_processor


def _open_source(arguments: argparse.Namespace) -> Dataset:
    options = {"video_processor": TVTSv2VideoProcessor(crop_size=arguments.crop_size), "seed": arguments.seed}
    if arguments.format == "webvid":
        return WebVidClips(arguments.table, arguments.root, **options)
    options |= {"num_clips": arguments.num_clips, "min_words": arguments.min_words}
    if arguments.format == "yt_temporal":
        return YTTemporalClips(arguments.list_file, arguments.root, **options)
    if arguments.format == "howto100m":
        return HowTo100MClips(arguments.list_file, arguments.captions, arguments.videos, **options)
    return BuiltClips(arguments.dataset, arguments.videos, arguments.split, **options)


def _parse_arguments() -> argparse.Namespace:
    style = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    parser = argparse.ArgumentParser(description="Draw a picture sheet of what pre-training will see.")
    formats = parser.add_subparsers(dest="format", required=True)
    built = formats.add_parser("built", help="a data set made by training.data_building.build_dataset", **style)
    built.add_argument("dataset", type=Path, help="its folder")
    built.add_argument("--videos", type=Path, required=True, help="the folder of videos it was built from")
    built.add_argument("--split", default="train", help="train or heldout")
    yt_temporal = formats.add_parser("yt_temporal", help="YT-Temporal's annotations and a list file", **style)
    yt_temporal.add_argument("list_file", type=Path, help="with a column Name")
    yt_temporal.add_argument("--root", type=Path, required=True, help="the folder that holds videos/")
    webvid = formats.add_parser("webvid", help="WebVid's table of captions", **style)
    webvid.add_argument("table", type=Path, help="CSV or tab-separated")
    webvid.add_argument("--root", type=Path, required=True, help="the folder its paths start from")
    howto100m = formats.add_parser("howto100m", help="HowTo100M's list and caption file", **style)
    howto100m.add_argument("list_file", type=Path, help="with a column video_id")
    howto100m.add_argument("--captions", type=Path, required=True, help="the JSON file of all captions")
    howto100m.add_argument("--videos", type=Path, required=True, help="the folder of videos")
    for parser_of_format in (built, yt_temporal, webvid, howto100m):
        if parser_of_format is not webvid:
            parser_of_format.add_argument("--num_clips", type=int, default=4, help="clips of a video")
            parser_of_format.add_argument("--min_words", type=int, default=3, help="words that each clip must have")
        parser_of_format.add_argument("--output", type=Path, default=Path("preview.png"), help="the picture")
        parser_of_format.add_argument("--num_videos", type=int, default=6, help="rows of the sheet, chosen at random")
        parser_of_format.add_argument("--epoch", type=int, default=0, help="every epoch draws anew")
        parser_of_format.add_argument("--seed", type=int, default=0, help="of the choice and of all draws")
        parser_of_format.add_argument("--crop_size", type=int, default=112, help="pixels of a frame's side")
    return parser.parse_args()


def main() -> None:
    arguments = _parse_arguments()
    source = _open_source(arguments)
    source.set_epoch(arguments.epoch)
    number = min(max(1, arguments.num_videos), len(source))
    indices = np.sort(np.random.default_rng(arguments.seed).choice(len(source), number, replace=False)).tolist()
    num_broken = draw_preview(source, indices, arguments.output)
    print(f"{arguments.output}: {number} of {len(source)} videos, {num_broken} of them unusable")


if __name__ == "__main__":
    main()
