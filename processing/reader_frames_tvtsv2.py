"""The frames that one read asks for, from decoded pictures to one array.

Axis legend: T frames, H height, W width.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .reader_container_tvtsv2 import OpenVideo, reading_errors
from .reader_metadata_tvtsv2 import Orientation, VideoFileMetadata

Indices = Sequence[int] | np.ndarray

logger = logging.getLogger(__name__)

# In a strict read, a larger share of packets that do not decode or of frames flagged as corrupt is an error.
MAX_DAMAGED_RATIO = 0.05


@dataclass(frozen=True)
class ReadRequest:
    """The arguments of `read_video` that concern the result."""

    sample_indices_fn: Callable[..., Indices]
    frame_transform: Callable[[np.ndarray], np.ndarray] | None
    strict: bool

    def check_damage(self, metadata: VideoFileMetadata, video: OpenVideo) -> None:
        """Raise `VideoReadingError` for a damaged file in a strict read, and log a warning otherwise."""
        num_lost, num_corrupt = metadata.num_undecodable_packets, metadata.num_corrupt_frames
        if not (num_lost or num_corrupt or metadata.is_truncated):
            return
        count = f"{metadata.total_num_frames} frames decode, {num_corrupt} of them corrupt, {num_lost} packets do not"
        if self.strict and metadata.is_truncated:
            raise video.error(f"it is truncated ({count}); a strict read refuses it.")
        if self.strict and num_lost + num_corrupt > MAX_DAMAGED_RATIO * (metadata.total_num_frames + num_lost):
            raise video.error(f"it is damaged ({count}); a strict read refuses it.")
        logger.warning("Video %r is damaged: %s.", video.name, count)


class TakenFrames:
    """The frames asked for, each converted to RGB as soon as it is decoded.

    Every frame must have the stored size of the first one.
    """

    def __init__(self, video: OpenVideo, request: ReadRequest, metadata: VideoFileMetadata):
        self.video, self.request = video, request
        self.orientation = Orientation(metadata.rotation // 90 % 4, metadata.is_mirrored)
        self.size = (metadata.width, metadata.height)[:: -1 if self.orientation.quarter_turns % 2 else 1]
        self.indices = check_indices(request.sample_indices_fn(metadata=metadata), metadata.total_num_frames)
        self.slots = {index: slot for slot, index in enumerate(dict.fromkeys(self.indices))}
        self.missing = set(self.slots)
        self.images: np.ndarray | None = None
        self.lock = threading.Lock()
        self.reformatters = threading.local()

    def add(self, index: int, frame: av.VideoFrame) -> None:
        """Convert a frame and keep it if it was asked for; several threads may call this."""
        if index not in self.slots:
            return
        if (frame.width, frame.height) != self.size:
            raise self.video.error(
                f"frame {index} has {frame.width}x{frame.height} pixels, the first frame "
                f"{self.size[0]}x{self.size[1]}; videos that change their size are not read."
            )
        if not hasattr(self.reformatters, "own"):
            self.reformatters.own = VideoReformatter()
        with reading_errors(self.video.name):
            image = self.reformatters.own.reformat(frame, format="rgb24", threads=1).to_ndarray()
        image = self.orientation.apply(image)
        if self.request.frame_transform is not None:
            image = self.request.frame_transform(image)
        with self.lock:
            if self.images is None:
                num_bytes, limit = image.nbytes * len(self.indices), self.video.limits.max_memory_bytes
                if num_bytes > limit:
                    raise self.video.error(
                        f"the frames asked for take {num_bytes} bytes, more than max_memory_bytes={limit}; "
                        "ask for fewer frames or raise the limit."
                    )
                self.images = np.empty((len(self.slots), *image.shape), image.dtype)
        self.images[self.slots[index]] = image
        self.missing.discard(index)

    def finish(self, metadata: VideoFileMetadata) -> tuple[np.ndarray, VideoFileMetadata]:
        """Return all frames in the order asked for, and the completed metadata.

        Raises:
            VideoReadingError: A frame is missing, or may show damage in a strict read.
        """
        if self.missing or self.images is None:
            raise self.video.error(f"frame {min(self.missing)} could not be decoded again.")
        damaged = self.slots.keys() & metadata.damaged_frames
        if self.request.strict and damaged:
            raise self.video.error(
                f"frame {min(damaged)} is damaged, or refers to frames that are; a strict read refuses it."
            )
        metadata.frames_indices = self.indices
        metadata.taken_seconds = [float(metadata.frame_seconds[index]) for index in self.indices]
        if len(self.slots) == len(self.indices):
            return self.images, metadata
        return self.images[[self.slots[index] for index in self.indices]], metadata


def check_indices(indices: Indices, total_num_frames: int) -> list[int]:
    """Return the indices as a list of int.

    Raises:
        ValueError: They are no non-empty list of whole numbers in [0, total_num_frames).
    """
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"`sample_indices_fn` must return a non-empty list of whole numbers, got {indices!r}.")
    if array.min() < 0 or array.max() >= total_num_frames:
        raise ValueError(
            f"`sample_indices_fn` returned indices from {array.min()} to {array.max()}; "
            f"the video's {total_num_frames} frames have 0 to {total_num_frames - 1}."
        )
    return array.tolist()
