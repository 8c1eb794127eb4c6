"""Pixels of a video file by a model's own processor; readers can be sent to other processes.

Axes: T frames, H height, W width.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from processing import VideoFileMetadata, interval_midpoint_indices, linspace_indices, read_video

# A processor's fields that say nothing about pixels.
_NOT_PIXELS = ("auto_map", "processor_class", "image_processor_type", "video_processor_type", "return_metadata")


class FrameReader:
    """Pixels of a file by an image processor, frame by frame, under the names of `TVTSv2VideoProcessor`.

    Args:
        processor: The model's own.
        num_frames: Frames per video.
        exact: Always `num_frames` frames, repeated where the video has fewer; else at most as many.
    """

    def __init__(self, processor: Any, num_frames: int, *, exact: bool = True):
        self.processor, self.num_frames, self.exact = processor, num_frames, exact

    def read_frames(self, path: str) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
        """Return the pixels (T, 3, H, W) of a video file, and its metadata."""
        frames, metadata = read_frames(path, self.num_frames, self.exact)
        return [(self.make_pixels(frames), metadata)]

    def make_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the pixels of frames (T, 3, H, W) uint8."""
        pixels = self.processor(images=list(frames), return_tensors="pt")["pixel_values"]
        return pixels.reshape(len(frames), *pixels.shape[-3:])

    @staticmethod
    def normalize_frames(pixels: torch.Tensor) -> torch.Tensor:
        """Return what `read_frames` returned: it is normalized."""
        return pixels


class VideoPrismReader(FrameReader):
    """Pixels of a file by VideoPrism's own processor."""

    def make_pixels(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the pixels of frames (T, 3, H, W) uint8."""
        return self.processor(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]


def read_frames(path: str | Path, num_frames: int, exact: bool) -> tuple[torch.Tensor, VideoFileMetadata]:
    """Return frames (T, 3, H, W), uint8 RGB, and metadata.

    The frames are the middle ones of equal intervals; of a video of fewer frames all of them, and with `exact` spread
    over `num_frames` places.
    """

    def choose(metadata: Any) -> np.ndarray:
        if exact and metadata.total_num_frames < num_frames:
            return linspace_indices(metadata.total_num_frames, num_frames)
        return interval_midpoint_indices(metadata.total_num_frames, num_frames)

    frames, metadata = read_video(str(path), choose)
    return torch.from_numpy(frames).movedim(-1, 1), metadata


def pixel_settings(processor: Any) -> dict:
    """The fields of an image or video processor that decide pixels, JSON-able."""
    settings = json.loads(processor.to_json_string())
    return {name: value for name, value in sorted(settings.items()) if name not in _NOT_PIXELS and value is not None}
