"""Pixels of a video file by a model's own processor; readers can be sent to other processes.

Axes: T frames, H height, W width.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from processing import interval_midpoint_indices, linspace_indices, read_video

# A processor's fields that say nothing about pixels.
_NOT_PIXELS = ("auto_map", "processor_class", "image_processor_type", "video_processor_type", "return_metadata")


class TVTSv2Reader:
    """Pixels (T, 3, H, W) of a file by TVTSv2's video processor."""

    def __init__(self, video_processor: Any, num_frames: int):
        self.video_processor, self.num_frames = video_processor, num_frames

    def __call__(self, path: Path) -> torch.Tensor:
        features = self.video_processor(
            [str(path)], preset="evaluation", num_frames=self.num_frames, return_tensors="pt"
        )
        return features["pixel_values_videos"][0]


class FrameReader:
    """Pixels (T, 3, H, W) of a file by an image processor, frame by frame.

    Args:
        exact: Always `num_frames` frames, repeated where the video has fewer; else at most as many.
    """

    def __init__(self, image_processor: Any, num_frames: int, exact: bool):
        self.image_processor, self.num_frames, self.exact = image_processor, num_frames, exact

    def __call__(self, path: Path) -> torch.Tensor:
        frames = read_frames(path, self.num_frames, self.exact)
        pixels = self.image_processor(images=list(frames), return_tensors="pt")["pixel_values"]
        return pixels.reshape(len(frames), *pixels.shape[-3:])


class VideoPrismReader:
    """Pixels (T, 3, H, W) of a file by VideoPrism's own processor."""

    def __init__(self, processor: Any, num_frames: int):
        self.processor, self.num_frames = processor, num_frames

    def __call__(self, path: Path) -> torch.Tensor:
        frames = read_frames(path, self.num_frames, exact=True)
        return self.processor(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]


def read_frames(path: Path, num_frames: int, exact: bool) -> torch.Tensor:
    """Frames (T, 3, H, W), uint8 RGB: the middle ones of equal intervals; of a video of fewer frames all of them,
    and with `exact` spread over `num_frames` places.
    """

    def choose(metadata: Any) -> np.ndarray:
        if exact and metadata.total_num_frames < num_frames:
            return linspace_indices(metadata.total_num_frames, num_frames)
        return interval_midpoint_indices(metadata.total_num_frames, num_frames)

    frames, _ = read_video(str(path), choose)
    return torch.from_numpy(frames).movedim(-1, 1)


def pixel_settings(processor: Any) -> dict:
    """The fields of an image or video processor that decide pixels, JSON-able."""
    settings = json.loads(processor.to_json_string())
    return {name: value for name, value in sorted(settings.items()) if name not in _NOT_PIXELS and value is not None}
