"""The frames of one read, from decoded pictures to one array.

Axis legend: T frames, H height, W width.
"""

import threading
from collections.abc import Callable

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .reader_container_tvtsv2 import OpenVideo, reading_errors
from .reader_metadata_tvtsv2 import VideoFileMetadata


class TakenFrames:
    """Collects the frames asked for, each converted to RGB the moment it is decoded.

    Args:
        video: The file, for its limits and its name.
        metadata: Gives the size frames must have; completed when all are there.
        indices: Frames asked for, repeats allowed.
        frame_transform: Applied to each frame, (H, W, 3) uint8, or None.
        turns: Counter-clockwise quarter turns to apply first.
    """

    def __init__(
        self,
        video: OpenVideo,
        metadata: VideoFileMetadata,
        indices: list[int],
        frame_transform: Callable | None,
        turns: int,
    ):
        self.video, self.metadata, self.indices = video, metadata, indices
        self.frame_transform, self.turns = frame_transform, turns
        self.slots = {index: slot for slot, index in enumerate(dict.fromkeys(indices))}
        self.missing = set(self.slots)
        self.images: np.ndarray | None = None
        self.lock = threading.Lock()
        self.reformatters = threading.local()

    def add(self, index: int, frame: av.VideoFrame) -> None:
        """Converts and keeps a frame; several threads may do so at a time."""
        self.video.check_frame_size(frame.width, frame.height)
        self._check_same_size(index, frame)
        if not hasattr(self.reformatters, "own"):
            self.reformatters.own = VideoReformatter()
        with reading_errors(self.video.name):
            image = self.reformatters.own.reformat(frame, format="rgb24", threads=1).to_ndarray()
        self._keep(index, _turn(image, self.turns))

    def _keep(self, index: int, image: np.ndarray) -> None:
        if self.frame_transform is not None:
            image = self.frame_transform(image)
        with self.lock:
            if self.images is None:
                self.video.check_memory(image.nbytes * len(self.indices))
                self.images = np.empty((len(self.slots), *image.shape), image.dtype)
        self.images[self.slots[index]] = image
        self.missing.discard(index)

    def _check_same_size(self, index: int, frame: av.VideoFrame) -> None:
        width, height = (frame.height, frame.width) if self.turns % 2 else (frame.width, frame.height)
        if (width, height) != (self.metadata.width, self.metadata.height):
            raise self.video.error(
                f"frame {index} has {width}x{height} pixels, the first frame "
                f"{self.metadata.width}x{self.metadata.height}; videos that change their size are not read."
            )

    def stacked(self) -> np.ndarray:
        """All frames in the order asked for; completes the metadata."""
        if self.missing:
            raise self.video.error(f"frame {min(self.missing)} could not be decoded again.")
        self.metadata.frames_indices = self.indices
        self.metadata.taken_seconds = [float(self.metadata.frame_seconds[i]) for i in self.indices]
        if len(self.slots) == len(self.indices):
            return self.images
        return self.images[[self.slots[index] for index in self.indices]]


def quarter_turns(degrees: int) -> int:
    """Counter-clockwise turns by 90 degrees, 0 to 3; other angles are rounded, as no rectangle of pixels shows them."""
    return round(degrees / 90) % 4


def _turn(image: np.ndarray, turns: int) -> np.ndarray:
    if not turns:
        return image
    # Whole pixels move twice as fast as single bytes.
    pixels = np.ascontiguousarray(image).view("V3")[..., 0]
    return np.ascontiguousarray(np.rot90(pixels, turns))[..., None].view(np.uint8)
