"""Videos to embeddings in a stream: other processes read ahead, the model takes batches, memory stays flat.

Axes: B segments, T frames, P projection. A segment is a whole video, or a window of it.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from processing import TVTSv2VideoProcessor
from tvtsv2.models.backends import Backend
from tvtsv2.reading.reading_processes import ReadingFailed, ReadingProcesses, result_of
from tvtsv2.reading.segment_reading import Segment, Windows, plan_reads, read_whole, read_windows
from tvtsv2.reading.video_list import VideoEntry

READS_AHEAD = 2  # per reading process
PARTS = ("reading", "model", "store")


@dataclass
class VideoResult:
    """What became of a video: its rows and embeddings (rows, P), or why it could not be read."""

    entry: VideoEntry
    segments: list[Segment] = field(default_factory=list)
    is_read: bool = False
    error: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.is_read and all(segment.embedding is not None for segment in self.segments)

    def embeddings(self) -> np.ndarray:
        """Return (rows, P) float32."""
        return np.stack([segment.embedding for segment in self.segments])


class VideoEmbedder:
    """Embed videos.

    Args:
        backend: the video tower.
        video_processor: as loaded.
        device: where frames are normalized and the backend takes them.
        windows: None: a segment is a whole video.
        batch_size: segments that go through the model at a time.
        num_readers: processes that read a file, or a group of windows, each.
        normalize: scale embeddings to length 1.

    Attributes:
        seconds: where the time since the first segment came in went: "reading" (waiting for it), "model", and "store"
            (what the caller of `embed` does between results).
    """

    def __init__(
        self,
        backend: Backend,
        video_processor: TVTSv2VideoProcessor,
        *,
        device: torch.device | str = "cpu",
        windows: Windows | None = None,
        batch_size: int = 8,
        num_readers: int = 2,
        normalize: bool = False,
    ):
        self.backend, self.video_processor, self.windows = backend, video_processor, windows
        self.device = torch.device(device)
        self.batch_size, self.num_readers, self.normalize = batch_size, num_readers, normalize
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def embed(self, entries: Iterable[VideoEntry]) -> Iterator[VideoResult]:
        """Yield a result per video, in their order."""
        open_results: deque[VideoResult] = deque()
        waiting: list[Segment] = []
        for result, segments in self._read(entries):
            if not (open_results and open_results[-1] is result):
                open_results.append(result)
            result.segments += segments
            waiting += segments
            while len(waiting) >= self.batch_size:
                self.embed_segments(waiting[: self.batch_size])
                del waiting[: self.batch_size]
            while open_results and open_results[0].is_complete:
                with self._timed("store"):
                    yield open_results.popleft()
        self.embed_segments(waiting)
        for result in open_results:
            with self._timed("store"):
                yield result

    def embed_segments(self, segments: list[Segment]) -> None:
        """Give each segment its embedding (P,), and drop its frames."""
        with self._timed("model"):
            for batch, pixels in self._batches(segments):
                embeddings = self.backend(pixels)
                if self.normalize:
                    embeddings = nn.functional.normalize(embeddings, dim=-1)
                for segment, embedding in zip(batch, embeddings.cpu().numpy(), strict=True):
                    segment.embedding, segment.frames = embedding, None

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - started

    def _batches(self, segments: list[Segment]) -> Iterator[tuple[list[Segment], torch.Tensor]]:
        """Yield segments of one shape and their pixels (B, T, 3, H, W), normalized on the device."""
        parts: dict[torch.Size, list] = {}  # by the shape of pixels: padded, videos of different lengths are alike
        for shape in {segment.frames.shape for segment in segments}:
            group = [segment for segment in segments if segment.frames.shape == shape]
            frames = torch.from_numpy(np.stack([segment.frames for segment in group]))
            if self.device.type == "cuda":
                frames = frames.pin_memory()
            pixels = self.video_processor.normalize_frames(frames.to(self.device, non_blocking=True))
            parts.setdefault(pixels.shape[1:], []).append((group, pixels))
        for groups_and_pixels in parts.values():
            groups, pixels = zip(*groups_and_pixels, strict=True)
            yield [*chain(*groups)], pixels[0] if len(pixels) == 1 else torch.cat(pixels)

    def _read(self, entries: Iterable[VideoEntry]) -> Iterator[tuple[VideoResult, list[Segment]]]:
        """Yield results in order, with the segments of each read as they come in."""
        self.seconds, has_begun = dict.fromkeys(PARTS, 0.0), False
        with ReadingProcesses(self.video_processor, self.num_readers) as processes:
            for (result, is_last), future in self._ahead(self._reads(entries, processes)):
                segments, error = self._take(future)
                if result.is_read:
                    continue  # it failed before, and is out
                result.error = error
                if result.error is not None:
                    result.segments, segments = [], []
                result.is_read = is_last or result.error is not None
                if segments and not has_begun:
                    self.seconds, has_begun = dict.fromkeys(PARTS, 0.0), True
                yield result, segments

    def _take(self, future: Future) -> tuple[Any, str | None]:
        """Return the future's result, or the reason why the read failed; counts the time it takes."""
        with self._timed("reading"):
            try:
                return result_of(future), None
            except ReadingFailed as error:
                return None, str(error)

    def _ahead(self, calls: Iterator[tuple]) -> Iterator[tuple]:
        """Yield (anything, future) in order, after enough others behind it have been submitted."""
        running: deque[tuple] = deque()
        for call in calls:
            running.append(call)
            if len(running) >= READS_AHEAD * self.num_readers:
                yield running.popleft()
        yield from running

    def _reads(
        self, entries: Iterable[VideoEntry], processes: ReadingProcesses
    ) -> Iterator[tuple[tuple[VideoResult, bool], Future]]:
        """Yield ((the video's result, whether this is its last read), the read's future)."""
        if self.windows is None:
            for entry in entries:
                yield (VideoResult(entry), True), processes.submit(read_whole, entry)
            return
        planned = ((entry, processes.submit(plan_reads, entry, self.windows)) for entry in entries)
        for entry, plan in self._ahead(planned):
            result = VideoResult(entry)
            groups, error = self._take(plan)
            if error is not None:
                yield (result, True), plan
                continue
            for number, spans in enumerate(groups):
                if result.error is not None:
                    break  # the rest would fail as well
                yield (result, number == len(groups) - 1), processes.submit(read_windows, entry, spans)
