"""Videos to embeddings in a stream: files are read ahead by threads, the model takes batches, memory stays flat.

Axes: B segments, T frames, P projection. A segment is a whole video, or a window of it.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from commands.embedding_store import Row
from commands.video_list import VideoEntry
from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2VideoProcessor, VideoFileMetadata, VideoReadingError, read_video

WINDOWS_PER_READ = 8  # bounds the memory of a long video's windows; each read goes through the file's index anew
READS_AHEAD = 2  # per reading thread


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
        """Returns (start, end) of the windows of a video; the last one reaches its end."""
        num_strides = max(0, math.ceil((video_seconds - self.seconds) / self.stride_seconds - 1e-9))
        starts = [index * self.stride_seconds for index in range(num_strides + 1)]
        return [(start, min(start + self.seconds, video_seconds)) for start in starts if start < video_seconds]


@dataclass
class Segment:
    """Pixels (T, 3, H, W) of a segment until it is embedded, then its embedding (P,)."""

    row: Row
    pixels: torch.Tensor | None
    embedding: np.ndarray | None = None


@dataclass
class VideoResult:
    """What became of a video: its rows and embeddings (rows, P), or the error that no part of it could escape."""

    entry: VideoEntry
    segments: list[Segment] = field(default_factory=list)
    is_read: bool = False
    error: VideoReadingError | None = None

    @property
    def is_complete(self) -> bool:
        return self.is_read and all(segment.embedding is not None for segment in self.segments)

    def embeddings(self) -> np.ndarray:
        """Returns (rows, P) float32."""
        return np.stack([segment.embedding for segment in self.segments])


class VideoEmbedder:
    """Embeds videos.

    Args:
        model, video_processor: as loaded; the model on its device.
        windows: None: a segment is a whole video.
        batch_size: segments that go through the model at a time.
        num_readers: files, or groups of windows, read at a time.
        normalize: scale embeddings to length 1.
    """

    def __init__(
        self,
        model: TVTSv2Model,
        video_processor: TVTSv2VideoProcessor,
        *,
        windows: Windows | None = None,
        batch_size: int = 8,
        num_readers: int = 2,
        normalize: bool = False,
    ):
        self.model, self.video_processor, self.windows = model, video_processor, windows
        self.batch_size, self.num_readers, self.normalize = batch_size, num_readers, normalize

    def embed(self, entries: Iterable[VideoEntry]) -> Iterator[VideoResult]:
        """Yields a result per video, in their order."""
        open_results: deque[VideoResult] = deque()
        waiting: list[Segment] = []
        for result, segments in self._read_ahead(entries):
            if not (open_results and open_results[-1] is result):
                open_results.append(result)
            result.segments += segments
            waiting += segments
            while len(waiting) >= self.batch_size:
                self._run_model(waiting[: self.batch_size])
                del waiting[: self.batch_size]
            while open_results and open_results[0].is_complete:
                yield open_results.popleft()
        self._run_model(waiting)
        yield from open_results

    @torch.no_grad()
    def _run_model(self, segments: list[Segment]) -> None:
        for shape in {segment.pixels.shape for segment in segments}:
            group = [segment for segment in segments if segment.pixels.shape == shape]
            pixels = torch.stack([segment.pixels for segment in group]).to(self.model.device, self.model.dtype)
            embeddings = self.model.get_video_features(pixels).pooler_output.float()
            if self.normalize:
                embeddings = nn.functional.normalize(embeddings, dim=-1)
            for segment, embedding in zip(group, embeddings.cpu().numpy(), strict=True):
                segment.embedding, segment.pixels = embedding, None

    def _read_ahead(self, entries: Iterable[VideoEntry]) -> Iterator[tuple[VideoResult, list[Segment]]]:
        """Yields results in order, with the segments of each read as they come in."""
        tasks = self._tasks(entries)
        running: deque[tuple[VideoResult, bool, Future]] = deque()
        with ThreadPoolExecutor(self.num_readers) as pool:
            while True:
                while len(running) < READS_AHEAD * self.num_readers:
                    task = next(tasks, None)
                    if task is None:
                        break
                    result, is_last, read = task
                    running.append((result, is_last, pool.submit(read)))
                if not running:
                    return
                result, is_last, future = running.popleft()
                try:
                    segments = future.result()
                except VideoReadingError as error:
                    result.error = result.error or error
                    segments = []
                if result.is_read:
                    continue  # it failed before, and is out
                if result.error is not None:
                    result.segments, segments = [], []
                result.is_read = is_last or result.error is not None
                yield result, segments

    def _tasks(self, entries: Iterable[VideoEntry]) -> Iterator[tuple[VideoResult, bool, Callable]]:
        """Yields (the video's result, whether this is its last read, the read)."""
        for entry in entries:
            result = VideoResult(entry)
            if self.windows is None:
                yield result, True, lambda entry=entry: self._read_whole(entry)
                continue
            try:
                spans = self.windows.of(_measure_seconds(entry))
            except VideoReadingError as error:
                result.error = error
                yield result, True, list
                continue
            for start in range(0, len(spans), WINDOWS_PER_READ):
                if result.error is not None:
                    break  # the rest would fail as well
                part = spans[start : start + WINDOWS_PER_READ]
                is_last = start + WINDOWS_PER_READ >= len(spans)
                yield result, is_last, lambda entry=entry, part=part: self._read_windows(entry, part)

    def _read_whole(self, entry: VideoEntry) -> list[Segment]:
        features = self.video_processor(str(entry.path), return_metadata=True)
        metadata = features["video_metadata"][0]
        row = _make_row(entry, metadata, 0.0, metadata.duration)
        return [Segment(row, features["pixel_values_videos"][0])]

    def _read_windows(self, entry: VideoEntry, spans: list[tuple[float, float]]) -> list[Segment]:
        features = self.video_processor.process_windows(str(entry.path), spans, return_metadata=True)
        return [
            Segment(_make_row(entry, metadata, *span), pixels)
            for span, metadata, pixels in zip(
                spans, features["video_metadata"], features["pixel_values_videos"], strict=True
            )
        ]


def _measure_seconds(entry: VideoEntry) -> float:
    _, metadata = read_video(str(entry.path), lambda metadata: [0])
    return metadata.duration


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
