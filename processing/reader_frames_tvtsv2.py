"""The frames of one read, from decoded pictures to one array.

Axis legend: T frames, H height, W width.
"""

import threading
from collections.abc import Callable
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .reader_container_tvtsv2 import OpenVideo, reading_errors


class Orientation(NamedTuple):
    """How stored frames are shown: turned counter-clockwise by quarters, then mirrored left to right or not."""

    quarter_turns: int = 0
    is_mirrored: bool = False

    @property
    def degrees(self) -> int:
        """Return the turn in degrees counter-clockwise, in (-180, 180]."""
        return 90 * self.quarter_turns - 360 * (self.quarter_turns > 2)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the image (H, W, 3) uint8 as it is shown."""
        if self == (0, False):
            return image
        # Moving whole pixels is twice as fast as moving single bytes.
        pixels = np.ascontiguousarray(image).view("V3")[..., 0]
        pixels = np.rot90(pixels, self.quarter_turns)
        pixels = pixels[:, ::-1] if self.is_mirrored else pixels
        return np.ascontiguousarray(pixels)[..., None].view(np.uint8)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return the orientation that the display matrix of a frame states, with angles rounded to quarter turns.

    A matrix that maps the picture to a line or a point is ignored. Source: FFmpeg, display.h: the pixel (x, y) is shown
    at (a x + c y, b x + d y), with y downwards.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    if a * d == b * c:
        return Orientation()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(2 * (d < 0), (a < 0) != (d < 0))
    return Orientation(1 if b < 0 else 3, (b < 0) == (c < 0))


class TakenFrames:
    """Collects the frames asked for, each converted to RGB as soon as it is decoded.

    Args:
        video: The file, for its limits and its name.
        size: (width, height) that every frame must have as stored.
        indices: Frames asked for, repeats allowed.
        frame_transform: Applied to each frame, (H, W, 3) uint8, or None.
        orientation: Applied before `frame_transform`.

    Attributes:
        corrupt: Indices of frames that the decoder flags as corrupt.
    """

    def __init__(
        self,
        video: OpenVideo,
        size: tuple[int, int],
        indices: list[int],
        frame_transform: Callable | None,
        orientation: Orientation,
    ):
        self.video, self.size, self.indices = video, size, indices
        self.frame_transform, self.orientation = frame_transform, orientation
        self.slots = {index: slot for slot, index in enumerate(dict.fromkeys(indices))}
        self.missing = set(self.slots)
        self.corrupt: set[int] = set()
        self.images: np.ndarray | None = None
        self.lock = threading.Lock()
        self.reformatters = threading.local()

    def add(self, index: int, frame: av.VideoFrame) -> None:
        """Convert a frame and keep it if it was asked for; several threads may call this."""
        if index not in self.slots:
            return
        self.video.check_frame_size(frame.width, frame.height)
        if (frame.width, frame.height) != self.size:
            raise self.video.error(
                f"frame {index} has {frame.width}x{frame.height} pixels, the first frame "
                f"{self.size[0]}x{self.size[1]}; videos that change their size are not read."
            )
        if frame.is_corrupt:
            self.corrupt.add(index)
        if not hasattr(self.reformatters, "own"):
            self.reformatters.own = VideoReformatter()
        with reading_errors(self.video.name):
            image = self.reformatters.own.reformat(frame, format="rgb24", threads=1).to_ndarray()
        self._keep(index, self.orientation.apply(image))

    def stacked(self) -> np.ndarray:
        """Return all frames in the order asked for, (T, H, W, 3) uint8 or what `frame_transform` returns, stacked."""
        if self.missing:
            raise self.video.error(f"frame {min(self.missing)} could not be decoded again.")
        if len(self.slots) == len(self.indices):
            return self.images
        return self.images[[self.slots[index] for index in self.indices]]

    def _keep(self, index: int, image: np.ndarray) -> None:
        if self.frame_transform is not None:
            image = self.frame_transform(image)
        with self.lock:
            if self.images is None:
                self.video.check_memory(image.nbytes * len(self.indices))
                self.images = np.empty((len(self.slots), *image.shape), image.dtype)
        self.images[self.slots[index]] = image
        self.missing.discard(index)
