"""What the reading processes of `tvtsv2 embed` do: a file, or windows of it, to frames and rows.

Axes: T frames, H height, W width, P projection.
"""

from dataclasses import dataclass

import numpy as np

from processing import TVTSv2VideoProcessor, VideoFileMetadata, read_video
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.embedding_store import Row


@dataclass
class Segment:
    """A whole video or a window of it: frames (T, H, W, 3) uint8 until it is embedded, then its embedding (P,).

    Frames take a quarter of the bytes of pixel values and are normalized on the model's device.
    """

    row: Row
    frames: np.ndarray | None
    embedding: np.ndarray | None = None


def measure_seconds(video_processor: TVTSv2VideoProcessor, entry: VideoEntry) -> float:
    """Returns the length of a video."""
    _, metadata = read_video(str(entry.path), lambda metadata: [0])
    return metadata.duration


def read_whole(video_processor: TVTSv2VideoProcessor, entry: VideoEntry) -> list[Segment]:
    """Returns a video as one segment."""
    ((frames, metadata),) = video_processor.read_frames(str(entry.path))
    return [Segment(_make_row(entry, metadata, 0.0, metadata.duration), frames.numpy())]


def read_windows(
    video_processor: TVTSv2VideoProcessor, entry: VideoEntry, spans: list[tuple[float, float]]
) -> list[Segment]:
    """Returns windows of a video, (start, end) in seconds, as segments."""
    read = video_processor.read_frames(str(entry.path), spans)
    return [
        Segment(_make_row(entry, metadata, *span), frames.numpy())
        for span, (frames, metadata) in zip(spans, read, strict=True)
    ]


def _make_row(entry: VideoEntry, metadata: VideoFileMetadata, start_seconds: float, end_seconds: float) -> Row:
    return Row(
        path=entry.name,
        file_bytes=entry.path.stat().st_size,
        start_seconds=float(start_seconds),
        end_seconds=float(end_seconds),
        frame_indices=[int(index) for index in metadata.frames_indices],
        frame_seconds=metadata.timestamps,
        video_seconds=float(metadata.duration),
        width=int(metadata.width),
        height=int(metadata.height),
    )
