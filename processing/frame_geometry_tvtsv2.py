"""Resizing and cropping frames to the pixels the released transforms give.

Axis legend: ... any leading axes (frames), H height, W width, C colours, kept last as in image files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


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
        """Frames `(..., H, W, C)` of any dtype as `(..., crop_height, crop_width, C)` of the same dtype."""
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
    """Which source row (or column) each target row shows, `(target_size,)` int64, as PIL's nearest filter picks them.

    PIL steps through the source by repeated addition in double precision. Rounding decides ties, so the closed form
    `(i + 0.5) * source / target`, like torch's "nearest-exact", differs from it at some sizes.

    Source: observed of Pillow 11 to 13 for sizes 1 to 1,400; torch's "nearest" differs at nearly all of them.
    """
    scale = source_size / target_size
    steps = np.full(target_size, scale)
    steps[0] = 0.5 * scale
    return torch.from_numpy(np.minimum(np.cumsum(steps).astype(np.int64), source_size - 1))


def shortest_edge_size(height: int, width: int, shortest_edge: int) -> tuple[int, int]:
    """Height and width after scaling the shorter side to `shortest_edge`; the longer one is truncated.

    Source: released code (torchvision's rule for an integer size).
    """
    if height <= width:
        return shortest_edge, shortest_edge * width // height
    return shortest_edge * height // width, shortest_edge


def center_crop_offset(size: int, crop: int) -> int:
    """Where a centred crop starts along one side. Source: released code; halves round to even."""
    return round((size - crop) / 2)
