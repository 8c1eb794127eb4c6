"""What one read asks for, and the checks on the way to its result."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
import numpy as np

from .reader_container_tvtsv2 import OpenVideo
from .reader_frames_tvtsv2 import Orientation, TakenFrames, orientation_of
from .reader_metadata_tvtsv2 import VideoFileMetadata

logger = logging.getLogger(__name__)

# In a strict read, a larger share of packets that do not decode or of frames flagged as corrupt is an error.
MAX_DAMAGED_RATIO = 0.05


@dataclass(frozen=True)
class ReadRequest:
    """The arguments of `read_video` that concern the result."""

    sample_indices_fn: Callable[..., Sequence[int]]
    frame_transform: Callable[[np.ndarray], np.ndarray] | None
    apply_rotation: bool
    strict: bool

    def start(self, video: OpenVideo, metadata: VideoFileMetadata, first_frame: av.VideoFrame) -> TakenFrames:
        """Ask for the indices and return the collector of their frames."""
        indices = check_indices(self.sample_indices_fn(metadata=metadata), metadata.total_num_frames)
        orientation = orientation_of(first_frame) if self.apply_rotation else Orientation()
        size = (first_frame.width, first_frame.height)
        return TakenFrames(video, size, indices, self.frame_transform, orientation)

    def finish(self, taken: TakenFrames, metadata: VideoFileMetadata) -> tuple[np.ndarray, VideoFileMetadata]:
        """Return the frames and the completed metadata.

        Raises:
            VideoReadingError: A frame is missing, or the decoder flags it as corrupt in a strict read.
        """
        frames = taken.stacked()
        if self.strict and taken.corrupt:
            raise taken.video.error(
                f"frame {min(taken.corrupt)} is damaged (the decoder flags it as corrupt); strict=False takes it."
            )
        metadata.frames_indices = taken.indices
        metadata.taken_seconds = [float(metadata.frame_seconds[index]) for index in taken.indices]
        return frames, metadata

    def check_damage(self, metadata: VideoFileMetadata, video: OpenVideo) -> None:
        """Raise `VideoReadingError` for a damaged file in a strict read, and log a warning otherwise."""
        num_lost, num_corrupt = metadata.num_undecodable_packets, metadata.num_corrupt_frames
        if not (num_lost or num_corrupt or metadata.is_truncated):
            return
        count = f"{metadata.total_num_frames} frames decode, {num_corrupt} of them corrupt, {num_lost} packets do not"
        if self.strict and metadata.is_truncated:
            raise video.error(f"it is truncated ({count}); strict=False takes what decodes.")
        if self.strict and num_lost + num_corrupt > MAX_DAMAGED_RATIO * (metadata.total_num_frames + num_lost):
            raise video.error(f"it is damaged ({count}); strict=False takes what decodes.")
        logger.warning("Video %r is damaged: %s.", video.name, count)


def check_indices(indices: Sequence[int], total_num_frames: int) -> list[int]:
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
