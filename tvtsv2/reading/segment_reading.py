"""What the reading processes of `tvtsv2 embed` do: a file, or windows of it, to frames and rows.

Axes: T frames, H height, W width, P projection.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from processing import TVTSv2VideoProcessor, VideoFileMetadata, read_video
from processing.frame_arrays_tvtsv2 import is_image_file
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.rows import Row

# Windows read at a time: each read makes the packet table of the file anew, and decodes again what its first window
# shares with the read before, from a keyframe on. The bytes of their frames bound memory.
WINDOWS_PER_READ = 32
MAX_GROUP_BYTES = 2**27


@dataclass(frozen=True)
class Windows:
    """Segments of `seconds`, one every `stride_seconds`, from the first frame on; the last may be shorter."""

    seconds: float
    stride_seconds: float

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"{name} of windows must be positive and finite, got {value}.")

    def of(self, video_seconds: float) -> list[tuple[float, float]]:
        """Return (start, end) of the windows of a video; the last one reaches its end."""
        num_strides = max(0, math.ceil((video_seconds - self.seconds) / self.stride_seconds - 1e-9))
        starts = [index * self.stride_seconds for index in range(num_strides + 1)]
        return [(start, min(start + self.seconds, video_seconds)) for start in starts if start < video_seconds]


@dataclass
class Segment:
    """A whole video or a window of it: frames (T, H, W, 3) uint8 until it is embedded, then its embedding (P,).

    Frames take a quarter of the bytes of pixel values and are normalized on the model's device.
    """

    row: Row | None
    frames: np.ndarray | None
    embedding: np.ndarray | None = None


def plan_reads(
    video_processor: TVTSv2VideoProcessor, entry: VideoEntry, windows: Windows
) -> list[list[tuple[float, float]]]:
    """Return the windows of a video, (start, end) in seconds, in groups to read at a time.

    Windows in which no frame starts would repeat the frame before them and are left out. A file that has to be decoded
    sequentially is decoded once for each group, so that its groups are as large as memory allows.
    """
    _, metadata = read_video(str(entry.path), lambda metadata: [0])
    spans = windows.of(metadata.duration) or [(0.0, metadata.duration)]  # which the reader refuses
    spans = [span for span in spans if metadata.has_frames(*span)] or spans[:1]
    crop = video_processor.crop_size
    size = max(1, MAX_GROUP_BYTES // (3 * video_processor.num_frames * crop["height"] * crop["width"]))
    if metadata.reading_method != "sequential":
        size = min(size, WINDOWS_PER_READ)
    return [spans[start : start + size] for start in range(0, len(spans), size)]


def read_whole(video_processor: TVTSv2VideoProcessor, entry: VideoEntry) -> list[Segment]:
    """Return a video as one segment."""
    ((frames, metadata),) = video_processor.read_frames(str(entry.path))
    return [Segment(_make_row(entry, metadata, 0.0, metadata.duration), frames.numpy())]


def read_frames(video_processor: TVTSv2VideoProcessor, video: Path | bytes) -> np.ndarray:
    """Return the frames (T, H, W, 3) uint8 of a video; of an image its pixel values (1, 3, H, W), which are not padded.

    Args:
        video: a file, or the bytes of one.
    """
    if is_image_file(video):
        return video_processor(video, return_tensors="np")["pixel_values_videos"][0]
    ((frames, _),) = video_processor.read_frames(video)
    return frames.numpy()


def read_windows(
    video_processor: TVTSv2VideoProcessor, entry: VideoEntry, spans: list[tuple[float, float]]
) -> list[Segment]:
    """Return windows of a video, (start, end) in seconds, as segments."""
    read = video_processor.read_frames(str(entry.path), spans)
    return [
        Segment(_make_row(entry, metadata, *span), frames.numpy())
        for span, (frames, metadata) in zip(spans, read, strict=True)
    ]


def _make_row(entry: VideoEntry, metadata: VideoFileMetadata, start_seconds: float, end_seconds: float) -> Row:
    status = entry.path.stat()
    return Row(
        path=entry.name,
        file_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        start_seconds=float(start_seconds),
        end_seconds=float(end_seconds),
        frame_indices=[int(index) for index in metadata.frames_indices],
        frame_seconds=metadata.timestamps,
        video_seconds=float(metadata.duration),
        width=int(metadata.width),
        height=int(metadata.height),
    )
