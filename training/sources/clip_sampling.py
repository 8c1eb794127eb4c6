"""K clips of one video: their place, their transcripts and their frames.

Axes: T frames, H height, W width, K clips (transcripts) of a video.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from processing import (
    TVTSv2VideoProcessor,
    VideoReadingError,
    VideoWindowError,
    interval_midpoint_indices,
    read_video,
)
from training.sources.clip_spans import ClipSpan, draw_span, fixed_spans
from training.transcripts.alignment import TimedWord, words_in_window

MAX_DRAWS = 20


class TranscriptError(ValueError):
    """A video's transcript is missing, broken, or has too few words for its clips."""


@dataclass(frozen=True)
class ClipSampler:
    """Takes `num_clips` clips of a video, none with fewer than `min_words` words."""

    video_processor: TVTSv2VideoProcessor
    num_clips: int = 4
    min_words: int = 3

    def __post_init__(self):
        if self.num_clips < 1 or self.min_words < 1:
            raise ValueError(f"num_clips and min_words must be at least 1, got {self.num_clips} and {self.min_words}")

    def sample(
        self,
        video: Path | bytes,
        *,
        duration: float,
        words: Sequence[TimedWord],
        name: str,
        generator: np.random.Generator | None,
    ) -> dict:
        """`{"pixel_values_videos": (T, 3, H, W) as of `read_clip`, "transcripts": K strings in order of time}`.

        Args:
            video: a file, or its bytes.
            duration: seconds of the video.
            words: all that is said in it.
            name: how errors call the video.
            generator: draws place, frames and crop; None takes fixed ones, for evaluation.

        Raises:
            VideoReadingError: the video is missing, cannot be read, or ends before its clips do.
            TranscriptError: no span with enough words was found.
        """
        span, transcripts = choose_span(duration, words, self.num_clips, self.min_words, name, generator)
        pixels = read_clip(self.video_processor, video, span.start_seconds, span.end_seconds, name, generator)
        return {"pixel_values_videos": pixels, "transcripts": transcripts}


def choose_span(
    duration: float,
    words: Sequence[TimedWord],
    num_clips: int,
    min_words: int,
    name: str,
    generator: np.random.Generator | None,
) -> tuple[ClipSpan, list[str]]:
    """A span whose clips all have words enough, and their transcripts; arguments as in `ClipSampler`.

    Raises:
        TranscriptError: the video is too short, or after `MAX_DRAWS` draws there was always a clip of too few words.
    """
    try:
        spans: Iterable[ClipSpan] = fixed_spans(duration, num_clips)
        if generator is not None:
            spans = (draw_span(duration, num_clips, generator) for _ in range(MAX_DRAWS))
        for span in spans:
            transcripts = [words_in_window(words, *window) for window in span.windows()]
            if min(len(transcript.split()) for transcript in transcripts) >= min_words:
                return span, transcripts
    except ValueError as error:
        raise TranscriptError(f"{name}: {error}") from error
    raise TranscriptError(
        f"{name}: no {num_clips} clips with at least {min_words} words each were found among {len(words)} words "
        f"in {duration:.1f} s"
    )


def read_clip(
    video_processor: TVTSv2VideoProcessor,
    video: Path | bytes,
    start_seconds: float,
    end_seconds: float,
    name: str,
    generator: np.random.Generator | None,
) -> torch.Tensor:
    """Frames of [start, end) seconds, (T, 3, H, W): random ones, cropped at random, or middle ones, centred.

    Random ones are uint8 frames, a quarter of the bytes for a worker to hand over; the Trainer normalises them on the
    model's device. Middle ones, which may have to be padded with zeros, are normalised here, float32.

    Raises:
        VideoReadingError: the video is missing, cannot be read, or has no frame there.
        ValueError: the processor's settings cannot be met; no other video would do better.
    """
    if isinstance(video, Path) and not video.is_file():
        raise VideoReadingError(f"{name}: there is no video {video}")
    try:
        if generator is not None:
            frames = video_processor.sample_training_frames(video, start_seconds, end_seconds, generator=generator)
            return frames.movedim(-1, -3).contiguous()

        def middle_frames(metadata):
            first, end = metadata.frame_span(start_seconds, end_seconds)
            return first + interval_midpoint_indices(end - first, video_processor.num_frames)

        frames, _ = read_video(video, middle_frames)
        return video_processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"][0]
    except (VideoReadingError, VideoWindowError) as error:
        raise VideoReadingError(f"{name}: {error}") from error
