"""Resizing and cropping of frames, to the exact pixels of the released transforms.

Axis legend: ... any leading axes (frames), H height, W width, C colors, kept last as in image files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers.image_utils import PILImageResampling, SizeDict

from .frame_settings_tvtsv2 import FrameSettings

# The resize before the crop, relative to the crop. Source: released code.
RESIZE_TO_CROP_RATIO = 1.2


@dataclass(frozen=True)
class FrameGeometry:
    """Resize, then crop, for frames of one size; calling it transforms frames.

    Attributes:
        resized_height, resized_width: Size after resizing, in pixels.
        crop_top, crop_left, crop_height, crop_width: The box kept of it; the whole frame when nothing is cropped.
        resample: Resizes `(N, C, H, W)` to a given height and width; None is nearest neighbour by PIL's rule.
    """

    resized_height: int
    resized_width: int
    crop_top: int
    crop_left: int
    crop_height: int
    crop_width: int
    resample: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] | None = None

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames `(..., H, W, C)` of any dtype as `(..., crop_height, crop_width, C)` of the same dtype."""
        height, width = frames.shape[-3:-1]
        top, left = self.crop_top, self.crop_left
        bottom, right = top + self.crop_height, left + self.crop_width
        if self.resample is None:
            # Only what survives the crop is gathered.
            rows = pil_nearest_indices(height, self.resized_height)[top:bottom].to(frames.device)
            columns = pil_nearest_indices(width, self.resized_width)[left:right].to(frames.device)
            return frames.index_select(-3, rows).index_select(-2, columns)
        channels_first = frames.movedim(-1, -3).reshape(-1, frames.shape[-1], height, width)
        if (height, width) != (self.resized_height, self.resized_width):
            channels_first = self.resample(channels_first, (self.resized_height, self.resized_width))
        cropped = channels_first[..., top:bottom, left:right].movedim(-3, -1)
        return cropped.reshape(*frames.shape[:-3], self.crop_height, self.crop_width, frames.shape[-1])


def pil_nearest_indices(source_size: int, target_size: int) -> torch.Tensor:
    """Return the source row (or column) of each target row, `(target_size,)` int64, as PIL's nearest filter picks it.

    PIL steps through the source by repeated addition in double precision. Rounding decides ties, so the closed form
    `(i + 0.5) * source / target`, like torch's "nearest-exact", differs from it at some sizes.

    Source: observed of Pillow 11 to 13 for sizes 1 to 1,400; torch's "nearest" differs at nearly all of them.
    """
    scale = source_size / target_size
    steps = np.full(target_size, scale)
    steps[0] = 0.5 * scale
    return torch.from_numpy(np.minimum(np.cumsum(steps).astype(np.int64), source_size - 1))


def shortest_edge_size(height: int, width: int, shortest_edge: int) -> tuple[int, int]:
    """Return height and width after scaling the shorter side to `shortest_edge`; the longer one is truncated.

    Source: released code (torchvision's rule for an integer size).
    """
    if height <= width:
        return shortest_edge, shortest_edge * width // height
    return shortest_edge * height // width, shortest_edge


def center_crop_offset(size: int, crop: int) -> int:
    """Return the start of a centered crop along one side. Source: released code; halves round to even."""
    return round((size - crop) / 2)


def geometry_for(
    height: int, width: int, settings: FrameSettings, generator: np.random.Generator | None = None
) -> FrameGeometry:
    """Return the resize and crop for frames of one size; the crop is centered, or drawn by a generator."""
    crop = settings.crop_size
    resized_height, resized_width = resized_size(height, width, settings)
    box = (0, 0, resized_height, resized_width)
    if settings.do_center_crop:
        if crop.height > resized_height or crop.width > resized_width:
            raise ValueError(
                f"A crop of {crop.height}x{crop.width} (height x width) does not fit frames of "
                f"{resized_height}x{resized_width}; choose a larger `size` or a smaller `crop_size`."
            )
        if generator is None:
            top, left = center_crop_offset(resized_height, crop.height), center_crop_offset(resized_width, crop.width)
        else:
            top = int(generator.integers(resized_height - crop.height + 1))
            left = int(generator.integers(resized_width - crop.width + 1))
        box = (top, left, crop.height, crop.width)
    is_nearest = settings.resample == PILImageResampling.NEAREST
    return FrameGeometry(resized_height, resized_width, *box, resample=None if is_nearest else _resampler(settings))


def resized_size(height: int, width: int, settings: FrameSettings) -> tuple[int, int]:
    """Return height and width after the resize of the settings."""
    if not settings.do_resize:
        return height, width
    size, crop = settings.size, settings.crop_size
    if size is None and settings.do_center_crop:
        size = SizeDict(shortest_edge=int(RESIZE_TO_CROP_RATIO * max(crop.height, crop.width)))
    elif size is None:
        size = crop
    if size.shortest_edge:
        return shortest_edge_size(height, width, size.shortest_edge)
    if size.height and size.width:
        return size.height, size.width
    raise ValueError(f"`size` needs 'shortest_edge', or 'height' and 'width', got {size}.")


def _resampler(settings: FrameSettings):
    from torchvision.transforms.v2 import functional as tvF
    from transformers.image_utils import pil_torch_interpolation_mapping

    interpolation = pil_torch_interpolation_mapping[settings.resample]
    return lambda frames, size: tvF.resize(frames, list(size), interpolation=interpolation, antialias=True)
