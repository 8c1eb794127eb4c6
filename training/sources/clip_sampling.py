"""Clips of one video: their place, their transcripts and their frames.

Axes: T frames, H height, W width, K clips (transcripts) of a video.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from processing import TVTSv2VideoProcessor, VideoReadingError, VideoWindowError
from training.sources.clip_spans import ClipSpan, draw_span, fixed_spans
from training.transcripts.words import TimedWord, count_words, words_in_window

MAX_DRAWS = 20
MAX_DRAWS_BETWEEN_CUTS = 1000  # few places may be left


class TranscriptError(ValueError):
    """A video's transcript is missing, broken, or has too few words for its clips."""


def choose_span(
    duration: float,
    words: Sequence[TimedWord],
    num_clips: int,
    min_words: int,
    place: str,
    generator: np.random.Generator | None,
    shots: Sequence[float] = (),
) -> tuple[ClipSpan, list[str]]:
    """Return a span whose clips all have at least `min_words` words, and their transcripts.

    Args:
        duration: seconds in which the span must lie.
        words: all words spoken, in order of time.
        num_clips, min_words: of the span, and of each clip.
        place: what errors call the video.
        generator: draws the span; None tries fixed ones, for evaluation.
        shots: seconds at which shots start, ascending; no clip contains the cut between two of them. The gaps between
            clips may.

    Raises:
        TranscriptError: the video is too short, or each of `MAX_DRAWS` draws (`MAX_DRAWS_BETWEEN_CUTS` where there are
            cuts) had a clip with too few words, or with a cut.
    """
    try:
        for span in _spans(duration, num_clips, generator, has_cuts=len(shots) > 1):
            if any(bisect_right(shots, start) < bisect_left(shots, end) for start, end in span.windows()):
                continue
            transcripts = [words_in_window(words, *window) for window in span.windows()]
            if min(map(count_words, transcripts)) >= min_words:
                return span, transcripts
    except ValueError as error:
        raise TranscriptError(f"{place}: {error}") from error
    raise TranscriptError(
        f"{place}: no {num_clips} clips with at least {min_words} words each were found among {len(words)} words "
        f"in {duration:.1f} s" + (f", within the {len(shots)} shots" if len(shots) > 1 else "")
    )


def _spans(
    duration: float, num_clips: int, generator: np.random.Generator | None, has_cuts: bool
) -> Iterator[ClipSpan]:
    if generator is None:
        yield from fixed_spans(duration, num_clips)
        if not has_cuts:
            return
        generator = np.random.default_rng(0)
    for _ in range(MAX_DRAWS_BETWEEN_CUTS if has_cuts else MAX_DRAWS):
        yield draw_span(duration, num_clips, generator)


def read_clip(
    video_processor: TVTSv2VideoProcessor,
    video: Path | bytes,
    window: tuple[float, float],
    place: str,
    generator: np.random.Generator | None,
    *,
    on_file_clock: bool = False,
) -> torch.Tensor:
    """Return frames of a window [start, end) in seconds, uint8 (T, H, W, 3), repeated where it has fewer than T.

    With a generator, frames and crop are random; without, they are those of the processor, center-cropped.

    Raises:
        VideoReadingError: the video is missing, cannot be read, or has no frame in the window.
        ValueError: the processor's settings cannot be met, whatever the video.
    """
    if isinstance(video, Path) and not video.is_file():
        raise VideoReadingError(f"{place}: there is no video {video}")
    try:
        if generator is not None:
            return video_processor.sample_training_frames(
                video, *window, generator=generator, on_file_clock=on_file_clock
            )
        ((frames, _),) = video_processor.read_frames(video, [window], on_file_clock=on_file_clock)
    except (VideoReadingError, VideoWindowError) as error:
        raise VideoReadingError(f"{place}: {error}") from error
    num_missing = video_processor.num_frames - len(frames)
    if num_missing <= 0:
        return frames
    # Batches need T frames; repeating them is what random sampling does with such windows.
    return frames[np.linspace(0, len(frames), video_processor.num_frames, endpoint=False).astype(int)]
