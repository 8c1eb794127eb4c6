"""Frames of video files: sampled, resized and cropped by the settings of the video processor.

Axis legend: T frames, H height, W width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .frame_geometry_tvtsv2 import FrameGeometry, geometry_for
from .frame_sampling_tvtsv2 import random_interval_indices
from .frame_settings_tvtsv2 import FrameSettings
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import read_video, read_windows


def read_file_frames(
    video: Any,
    windows: Sequence[tuple[float, float]] | None,
    settings: FrameSettings,
    num_threads: int | None = None,
) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
    """Return frames (T, H, W, 3) uint8 and metadata: of each window of a file, or of the whole file."""
    reader = _FileFrames(settings)
    options = reader.options() | {"num_threads": num_threads}
    if windows is None:
        read = [read_video(video, reader.sample, **options)]
    else:
        read = read_windows(video, windows, reader.sample, **options)
    return [(torch.from_numpy(frames), metadata) for frames, metadata in read]


def read_training_frames(
    video: Any, span: tuple[float, float], settings: FrameSettings, generator: np.random.Generator
) -> torch.Tensor:
    """Return frames (T, H, W, 3) uint8 drawn from a span [start, end) in seconds, all with one random crop."""
    reader = _FileFrames(settings, generator, span)
    frames, _ = read_video(video, reader.sample, num_threads=1, **reader.options())
    return torch.from_numpy(frames)


class _FileFrames:
    """Samples the frames of a file once its metadata is read, and resizes and crops each as soon as it is decoded.

    With a generator, frames are drawn from the intervals of a span in seconds, and the crop is drawn as well.
    """

    def __init__(
        self, settings: FrameSettings, generator: np.random.Generator | None = None, span: tuple | None = None
    ):
        self.settings, self.generator, self.span = settings, generator, span
        self.geometry: FrameGeometry | None = None

    def sample(self, metadata: VideoFileMetadata) -> Sequence[int]:
        """Return the indices of the frames to read."""
        if self.generator is None:
            indices = self.settings.sample_indices(metadata)
        else:
            span = metadata.frame_span(*self.span)
            indices = random_interval_indices(*span, self.settings.num_frames, self.generator)
        self.geometry = geometry_for(metadata.height, metadata.width, self.settings, self.generator)
        return indices

    def transform(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one frame (H, W, 3)."""
        return self.geometry(torch.from_numpy(image)).numpy()

    def options(self) -> dict:
        """Return the arguments of `read_video` and `read_windows`."""
        return {
            "frame_transform": self.transform,
            "strict": self.settings.strict,
            "limits": self.settings.limits,
        }
