"""The settings of the video processor, and the two presets that stand for the release's two transforms."""

import difflib
from collections.abc import Iterable
from typing import TypedDict

from transformers.image_utils import PILImageResampling

from .frame_sampling_tvtsv2 import interval_midpoint_indices, linspace_indices

# What each preset says where neither the processor nor the call does.
PRESETS = {
    "evaluation": {
        "sample_indices": interval_midpoint_indices,
        "resample": PILImageResampling.NEAREST,
        "do_center_crop": True,
        "do_pad": True,
    },
    "feature_extraction": {
        "sample_indices": linspace_indices,
        "resample": PILImageResampling.BILINEAR,
        "do_center_crop": False,
        "do_pad": False,
    },
}


class TVTSv2VideosKwargs(TypedDict, total=False):
    """Settings of `TVTSv2VideoProcessor`, for its constructor and, for one call, `__call__`.

    Attributes:
        preset: "evaluation" (middle frames of equal intervals, nearest resize, centre crop, short videos padded with
            zeros after normalisation) or "feature_extraction" (evenly spread frames, squashed to a square).
        num_frames: Frames taken of a video.
        crop_size: Height and width of the result.
        size: Size before the crop; None: shortest edge `int(1.2 * crop_size)`, or `crop_size` where nothing is cropped.
        resample: PIL's number of the resizing filter; None: as the preset says.
        do_sample_frames: Take `num_frames` of a video; False takes all of its frames.
        do_resize, do_center_crop, do_rescale, do_normalize: Leave a step out with False.
        do_pad: Fill videos of fewer than `num_frames` frames up with zeros; None: as the preset says.
        rescale_factor: Multiplies values from 0 to 255.
        image_mean, image_std: Per colour, of rescaled values.
        device: Where normalisation runs and the result lies.
        input_data_format: "channels_first" or "channels_last", for arrays whose shape leaves it open.
        strict, limits: What is refused of files, see `read_video`; `limits` is a dict of `VideoLimits`' attributes.
        num_workers: Files read at a time; None: as many as there are cores, but one inside a data loader's worker.
        on_error: "raise", or "collect": unreadable files are left out, and `video_errors` has, for each video given,
            its `VideoReadingError` or None.
        return_metadata: Add `video_metadata`, one per video.
        return_tensors: "pt" or "np" for one stacked tensor; None for a list, one per video.
    """

    preset: str | None
    num_frames: int | None
    crop_size: int | dict[str, int] | None
    size: int | dict[str, int] | None
    resample: int | None
    do_sample_frames: bool | None
    do_resize: bool | None
    do_center_crop: bool | None
    do_pad: bool | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: list[float] | None
    image_std: list[float] | None
    device: str | None
    input_data_format: str | None
    strict: bool | None
    limits: dict[str, float] | None
    num_workers: int | None
    on_error: str | None
    return_metadata: bool | None
    return_tensors: str | None


def check_names(names: Iterable[str]) -> None:
    """Raises TypeError for the first name that is no setting, with the nearest one that is."""
    for name in sorted(names):
        if name not in TVTSv2VideosKwargs.__annotations__:
            near = difflib.get_close_matches(name, TVTSv2VideosKwargs.__annotations__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {sorted(TVTSv2VideosKwargs.__annotations__)}."
            raise TypeError(f"TVTSv2VideoProcessor has no argument {name!r}; {hint}")
