"""Frames of video files, uint8, resized and cropped by the settings of the video processor.

Axis legend: T frames, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from .frame_geometry_tvtsv2 import FrameGeometry, geometry_for
from .frame_sampling_tvtsv2 import random_interval_indices
from .reader_container_tvtsv2 import VideoLimits
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import read_video, read_windows


def read_file_frames(
    video: Any, windows: Sequence[tuple[float, float]] | None, settings: dict, num_threads: int | None = None
) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
    """Frames (T, H, W, 3) uint8, resized and cropped, and metadata: of each window of a file, or of all of it."""
    reader = _FileFrames(settings)
    options = reader.options() | {"num_threads": num_threads}
    if windows is None:
        read = [read_video(video, reader.sample, **options)]
    else:
        read = read_windows(video, windows, reader.sample, **options)
    return [(torch.from_numpy(frames), metadata) for frames, metadata in read]


def read_training_frames(
    video: Any, span: tuple[float, float], settings: dict, generator: np.random.Generator
) -> torch.Tensor:
    """Frames (T, H, W, 3) uint8 of frames drawn from a span [start, end) in seconds, all in one crop, drawn as well."""
    reader = _FileFrames(settings, generator, span)
    frames, _ = read_video(video, reader.sample, num_threads=1, **reader.options())
    return torch.from_numpy(frames)


def sample_indices(metadata: VideoMetadata, settings: dict) -> Sequence[int]:
    """Indices of the frames to take of a video."""
    if not settings["do_sample_frames"]:
        return range(metadata.total_num_frames)
    return settings["sample_indices"](metadata.total_num_frames, settings["num_frames"])


class _FileFrames:
    """Chooses the frames of a file once its metadata is known, and shrinks each the moment it is read.

    With a generator, frames are drawn from the intervals of a span in seconds, and the crop is drawn as well.
    """

    def __init__(self, settings: dict, generator: np.random.Generator | None = None, span: tuple | None = None):
        self.settings, self.generator, self.span = settings, generator, span
        self.geometry: FrameGeometry | None = None

    def sample(self, metadata: VideoFileMetadata):
        """Indices of the frames to read."""
        if self.generator is None:
            indices = sample_indices(metadata, self.settings)
        else:
            span = metadata.frame_span(*self.span)
            indices = random_interval_indices(*span, self.settings["num_frames"], self.generator)
        self.geometry = geometry_for(metadata.height, metadata.width, self.settings, self.generator)
        return indices

    def transform(self, image: np.ndarray) -> np.ndarray:
        """One frame (H, W, 3) resized and cropped."""
        return self.geometry(torch.from_numpy(image)).numpy()

    def options(self) -> dict:
        """Arguments of `read_video` and `read_windows`."""
        return {
            "frame_transform": self.transform,
            "strict": self.settings["strict"],
            "limits": VideoLimits(**self.settings["limits"] or {}),
        }
