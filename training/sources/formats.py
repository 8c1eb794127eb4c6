"""The formats of a YAML's `sources`, and how one is opened."""

import inspect
from collections.abc import Mapping
from pathlib import Path

from training.sources.built_dataset import BuiltDataset
from training.sources.howto100m import HowTo100M
from training.sources.shards import Shards
from training.sources.source_video import VideoSource
from training.sources.webvid import WebVid
from training.sources.yt_temporal import YTTemporal

FORMATS = {
    "yt_temporal": YTTemporal,
    "webvid": WebVid,
    "howto100m": HowTo100M,
    "built": BuiltDataset,
    "shards": Shards,
}


def format_of(source: Mapping) -> type[VideoSource]:
    """Return the class of a source's format.

    Raises:
        ValueError: the source is no mapping, or its format is unknown.
    """
    form = source.get("format") if isinstance(source, Mapping) else None
    if not isinstance(form, str) or form not in FORMATS:
        raise ValueError(
            f"A source is a mapping whose format is one of {', '.join(FORMATS)}, such as {{format: built, dataset: "
            f"FOLDER, videos: FOLDER}}; got {source!r}."
        )
    return FORMATS[form]


def has_splits(source: Mapping) -> bool:
    """Return whether a source's format has the key `split`."""
    return "split" in inspect.signature(format_of(source)).parameters


def check_source(source: Mapping) -> type[VideoSource]:
    """Return the class of a source's format, if the source has the keys of that format; no file is opened.

    Raises:
        ValueError: the format is unknown, keys are missing or unknown, or a value is no text.
    """
    video_source = format_of(source)
    parameters = inspect.signature(video_source).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    missing = [key for key in required if key not in source]
    unknown = [key for key in source if key not in (*parameters, "format", "weight")]
    if missing or unknown:
        optional = "".join(f", optional: {name}" for name in parameters if name not in required)
        raise ValueError(
            f"A source of format {source['format']} has the keys {', '.join(required)}{optional}; missing {missing}, "
            f"unknown {unknown}."
        )
    for key, value in source.items():
        if key != "weight" and not isinstance(value, str | Path):
            raise ValueError(f"A source's {key} must be text, got {value!r}.")
    return video_source


def open_source(source: Mapping) -> VideoSource:
    """Return the videos that a mapping of the YAML's `sources` describes.

    Raises:
        ValueError: the format is unknown, keys are missing or unknown, or the files are broken.
        FileNotFoundError: files are missing.
    """
    video_source = check_source(source)
    return video_source(**{key: value for key, value in source.items() if key not in ("format", "weight")})
