"""Settings of the video processor: rules of sampling, the two presets, what a caller may pass, what holds for one call.

Axis legend: T frames taken. An interval is written [start, end): the end is not part of it.
"""

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoMetadata

from .reader_container_tvtsv2 import VideoLimits


def interval_midpoint_indices(total_num_frames: int, num_frames: int) -> np.ndarray:
    """Return indices of the middle frames of equal intervals, the rule of the evaluation preset.

    Returns:
        `(min(num_frames, total_num_frames),)` int64, ascending and distinct: a short video gives all of its frames.

    Raises:
        ValueError: A count is below 1.

    Source: released code (evaluation): frame `(a + b - 1) // 2` of each interval [a, b).
    """
    _check_counts(total_num_frames, num_frames)
    edges = _interval_edges(0, total_num_frames, min(num_frames, total_num_frames))
    return (edges[:-1] + edges[1:] - 1) // 2


def linspace_indices(total_num_frames: int, num_frames: int) -> np.ndarray:
    """Return indices evenly spread from the first to the last frame, the rule of the feature-extraction preset.

    Returns:
        `(num_frames,)` int64, ascending: a short video repeats frames. Counts are those of `interval_midpoint_indices`.

    Source: released code (feature extraction).
    """
    _check_counts(total_num_frames, num_frames)
    return np.linspace(0, total_num_frames - 1, num_frames).astype(np.int64)


def random_interval_indices(
    start_frame: int, end_frame: int, num_frames: int, generator: np.random.Generator
) -> np.ndarray:
    """Return indices of one random frame from each of `num_frames` equal intervals of [start_frame, end_frame).

    The generator is advanced by one draw of `num_frames` numbers.

    Returns:
        `(num_frames,)` int64, ascending: a span of fewer frames repeats some.

    Raises:
        ValueError: The span is empty or a count is out of range.

    Source: paper, section on pre-training data; the interval edges are those of the released code.
    """
    if not 0 <= start_frame < end_frame:
        raise ValueError(
            f"The span of frames [{start_frame}, {end_frame}) is empty or starts before 0; "
            "give 0 <= start_frame < end_frame."
        )
    _check_counts(end_frame - start_frame, num_frames)
    edges = _interval_edges(start_frame, end_frame, num_frames)
    return edges[:-1] + generator.integers(0, np.maximum(np.diff(edges), 1))


def _interval_edges(start_frame: int, end_frame: int, num_intervals: int) -> np.ndarray:
    return np.linspace(start_frame, end_frame, num_intervals + 1).astype(np.int64)


def _check_counts(total_num_frames: int, num_frames: int) -> None:
    for name, value in (("total_num_frames", total_num_frames), ("num_frames", num_frames)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")


# The values of each preset, for settings that neither the call nor the processor gives.
PRESETS = {
    "evaluation": {
        "choose_indices": interval_midpoint_indices,
        "resample": PILImageResampling.NEAREST,
        "do_center_crop": True,
        "do_pad": True,
    },
    "feature_extraction": {
        "choose_indices": linspace_indices,
        "resample": PILImageResampling.BILINEAR,
        "do_center_crop": False,
        "do_pad": False,
    },
}


class TVTSv2VideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments of `TVTSv2VideoProcessor`: of its constructor, and of `__call__` for one call.

    Those of `transformers.processing_utils.VideosKwargs`, with these particulars, and five more:

    Attributes:
        num_frames: Number of frames sampled from a video. Default: 12.
        fps: Frames sampled per second, in place of `num_frames`; videos are then not padded.
        crop_size: Height and width of the result. Default: 224 x 224.
        size: Size before the crop. Default: shortest edge `int(1.2 * crop_size)`, or `crop_size` without a crop.
        resample, do_center_crop, do_pad: Default: the preset's. `do_pad` appends frames of zeros to videos of fewer
            than `num_frames` frames; an image is never padded.
        do_sample_frames: False keeps all frames of a video.
        do_convert_rgb: Accept grayscale and RGBA input, alpha discarded. Default: True; False makes it an error.
        image_mean, image_std: Per color, of rescaled values. Default: ImageNet's.
        device: Device of the normalization and of the result.
        video_metadata: One `VideoMetadata` or dict per video; needed for `fps` on arrays, not used for files.
        data_format: "channels_first", the only format of the result.
        input_data_format: "channels_first" or "channels_last", for arrays whose shape allows both.
        return_metadata: Add `video_metadata`, one per video.
        return_tensors: "pt" or "np" for one stacked tensor; None for a list, one item per video.
        preset: "evaluation" (middle frames of equal intervals, nearest-neighbor resize, center crop, padding after
            normalization) or "feature_extraction" (evenly spaced frames, bilinear resize to a square).
        strict: Raise for damaged files, see `read_video`. Default: True.
        limits: Attributes of `VideoLimits`, as a dict.
        num_workers: Files read in parallel. Default: the number of cores, 1 in a worker of a data loader.
        on_error: "raise", or "collect": unreadable files are left out, and `video_errors` holds, for each video given,
            its `VideoReadingError` or None.
    """

    preset: str | None
    strict: bool | None
    limits: dict[str, float] | None
    num_workers: int | None
    on_error: str | None


SETTING_NAMES = TVTSv2VideoProcessorKwargs.__annotations__.keys()


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """Settings of one call, all resolved; see `TVTSv2VideoProcessorKwargs`."""

    choose_indices: Callable[[int, int], np.ndarray]
    num_frames: int
    fps: float | None
    do_sample_frames: bool | None
    do_convert_rgb: bool | None
    input_data_format: str | None
    do_resize: bool | None
    size: SizeDict | None
    resample: PILImageResampling
    do_center_crop: bool
    crop_size: SizeDict
    do_rescale: bool | None
    rescale_factor: float
    do_normalize: bool | None
    image_mean: Sequence[float] | float
    image_std: Sequence[float] | float
    do_pad: bool
    device: Any
    strict: bool
    limits: VideoLimits
    num_workers: int | None
    on_error: str
    return_metadata: bool | None
    return_tensors: str | None

    def __post_init__(self):
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise ValueError(f"`num_frames` must be a whole number of at least 1, got {self.num_frames!r}.")
        if self.fps is not None and not (isinstance(self.fps, int | float) and self.fps > 0):
            raise ValueError(f"`fps` must be positive, got {self.fps!r}.")
        if self.on_error not in ("raise", "collect"):
            raise ValueError(f"`on_error` must be 'raise' or 'collect', got {self.on_error!r}.")
        if not (self.crop_size.height and self.crop_size.width):
            raise ValueError(f"`crop_size` needs a positive height and width, got {self.crop_size}.")

    def sample_indices(self, metadata: VideoMetadata) -> np.ndarray:
        """Return the indices of the frames to take from a video, int64, ascending."""
        total_num_frames = metadata.total_num_frames
        if not self.do_sample_frames:
            return np.arange(total_num_frames)
        if self.fps is None:
            return self.choose_indices(total_num_frames, self.num_frames)
        if not metadata.fps:
            raise ValueError(
                f"Sampling {self.fps} frames per second needs the video's own rate; give `video_metadata` with `fps`, "
                "or use `num_frames`."
            )
        num_frames = int(total_num_frames / metadata.fps * self.fps)
        return self.choose_indices(total_num_frames, min(max(1, num_frames), total_num_frames))


def resolve_settings(call: dict, processor: Any) -> FrameSettings:
    """Return the settings of one call: the call's arguments, else the processor's attributes, else the preset's values.

    Raises:
        ValueError: A value is out of range, or two exclude each other.
    """
    values: dict[str, Any] = {}
    for name in SETTING_NAMES:
        value = call.get(name)
        values[name] = getattr(processor, name, None) if value is None else value
    if call.get("num_frames") is not None:
        if call.get("fps") is not None:
            raise ValueError("`num_frames` and `fps` exclude each other; give one of them.")
        values["fps"] = None
    if values["preset"] not in PRESETS:
        raise ValueError(f"`preset` must be one of {sorted(PRESETS)}, got {values['preset']!r}.")
    if values["data_format"] not in (None, "channels_first"):
        raise ValueError(f"`data_format` must be 'channels_first', got {values['data_format']!r}.")
    for name, value in PRESETS[values["preset"]].items():
        if values.get(name) is None:
            values[name] = value
    values["size"] = _as_size(values["size"], "size", bool(values["default_to_square"]))
    values["crop_size"] = _as_size(values["crop_size"], "crop_size", True)
    try:
        values["limits"] = VideoLimits(**(values["limits"] or {}))
    except TypeError as error:
        names = ", ".join(VideoLimits.__annotations__)
        raise ValueError(f"`limits` must be a dict of numbers for {names}, got {values['limits']!r}.") from error
    return FrameSettings(**{field.name: values[field.name] for field in fields(FrameSettings)})


def check_names(
    names: Iterable[str], owner: str = "TVTSv2VideoProcessor", known: Collection[str] = SETTING_NAMES
) -> None:
    """Raise a TypeError for the first name that is not known, with the nearest one that is."""
    for name in sorted(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {sorted(known)}."
            raise TypeError(f"{owner} has no argument {name!r}; {hint}")


def _as_size(size: Any, name: str, default_to_square: bool) -> SizeDict | None:
    if size is None or isinstance(size, SizeDict):
        return size
    return SizeDict(**get_size_dict(size, default_to_square=default_to_square, param_name=name))
