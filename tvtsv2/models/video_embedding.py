"""Videos to embeddings in a stream: other processes read ahead, the model takes batches, memory stays flat.

Axes: B segments, T frames, P projection. A segment is a whole video, or a window of it.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2VideoProcessor
from tvtsv2.reading.reading_processes import ReadingFailed, ReadingProcesses, result_of
from tvtsv2.reading.segment_reading import Segment, Windows, plan_reads, read_whole, read_windows
from tvtsv2.reading.video_list import VideoEntry

READS_AHEAD = 2  # per reading process


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
        """Returns (rows, P) float32."""
        return np.stack([segment.embedding for segment in self.segments])


class VideoEmbedder:
    """Embeds videos.

    Args:
        model, video_processor: as loaded; the model on its device.
        windows: None: a segment is a whole video.
        batch_size: segments that go through the model at a time.
        num_readers: processes that read a file, or a group of windows, each.
        normalize: scale embeddings to length 1.

    Attributes:
        waiting_share: of the time since the first segment came in, how much the model spent waiting for others.
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
        self.waiting_share = 0.0
        self._started: float | None = None
        self._waited = 0.0

    def embed(self, entries: Iterable[VideoEntry]) -> Iterator[VideoResult]:
        """Yields a result per video, in their order."""
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
                yield open_results.popleft()
        self.embed_segments(waiting)
        yield from open_results

    @torch.no_grad()
    def embed_segments(self, segments: list[Segment]) -> None:
        """Give each segment its embedding (P,), and drop its frames."""
        for batch, pixels in self._batches(segments):
            output = self.model.get_video_features(pixels.to(self.model.dtype), class_token_only=True)
            embeddings = output.pooler_output.float()
            if self.normalize:
                embeddings = nn.functional.normalize(embeddings, dim=-1)
            for segment, embedding in zip(batch, embeddings.cpu().numpy(), strict=True):
                segment.embedding, segment.frames = embedding, None

    def _batches(self, segments: list[Segment]) -> Iterator[tuple[list[Segment], torch.Tensor]]:
        """Yields segments of one shape and their pixels (B, T, 3, H, W), normalised on the model's device."""
        parts: dict[torch.Size, list] = {}  # by the shape of pixels: padded, videos of different lengths are alike
        for shape in {segment.frames.shape for segment in segments}:
            group = [segment for segment in segments if segment.frames.shape == shape]
            frames = torch.from_numpy(np.stack([segment.frames for segment in group]))
            if self.model.device.type == "cuda":
                frames = frames.pin_memory()
            pixels = self.video_processor.normalize_frames(frames.to(self.model.device, non_blocking=True))
            parts.setdefault(pixels.shape[1:], []).append((group, pixels))
        for groups_and_pixels in parts.values():
            groups, pixels = zip(*groups_and_pixels, strict=True)
            yield [*chain(*groups)], pixels[0] if len(pixels) == 1 else torch.cat(pixels)

    def _read(self, entries: Iterable[VideoEntry]) -> Iterator[tuple[VideoResult, list[Segment]]]:
        """Yields results in order, with the segments of each read as they come in."""
        self._started, self._waited = None, 0.0
        with ReadingProcesses(self.video_processor, self.num_readers) as processes:
            for (result, is_last), future in self._ahead(self._reads(entries, processes)):
                segments, error = self._take(future)
                if result.is_read:
                    continue  # it failed before, and is out
                result.error = error
                if result.error is not None:
                    result.segments, segments = [], []
                result.is_read = is_last or result.error is not None
                if segments and self._started is None:
                    self._started, self._waited = time.perf_counter(), 0.0
                yield result, segments

    def _take(self, future: Future) -> tuple[Any, str | None]:
        """Returns the future's result, or the reason why the read failed; counts the time it takes."""
        asked = time.perf_counter()
        try:
            return result_of(future), None
        except ReadingFailed as error:
            return None, str(error)
        finally:
            now = time.perf_counter()
            self._waited += now - asked
            if self._started is not None:
                self.waiting_share = self._waited / (now - self._started)

    def _ahead(self, calls: Iterator[tuple]) -> Iterator[tuple]:
        """Yields (anything, future) in order, after enough others behind it have been submitted."""
        running: deque[tuple] = deque()
        for call in calls:
            running.append(call)
            if len(running) >= READS_AHEAD * self.num_readers:
                yield running.popleft()
        yield from running

    def _reads(
        self, entries: Iterable[VideoEntry], processes: ReadingProcesses
    ) -> Iterator[tuple[tuple[VideoResult, bool], Future]]:
        """Yields ((the video's result, whether this is its last read), the read's future)."""
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
