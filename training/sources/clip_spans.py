"""Where the clips of a video lie: a span of K clips of one length, a gap apart.

start                                                    end
  |<- clip ->|<gap>|<- clip ->|<gap>|<- clip ->|<gap>|<- clip ->|
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CLIP_SECONDS = (3.0, 5.0)
GAP_SECONDS = 1.0


@dataclass(frozen=True)
class ClipSpan:
    """K clips of `clip_seconds`, `GAP_SECONDS` apart, from `start_seconds` on."""

    start_seconds: float
    clip_seconds: float
    num_clips: int

    @property
    def end_seconds(self) -> float:
        return self.start_seconds + span_seconds(self.clip_seconds, self.num_clips)

    def windows(self) -> list[tuple[float, float]]:
        """[start, end) of each clip in seconds, in order."""
        starts = [self.start_seconds + k * (self.clip_seconds + GAP_SECONDS) for k in range(self.num_clips)]
        return [(start, start + self.clip_seconds) for start in starts]


def span_seconds(clip_seconds: float, num_clips: int) -> float:
    """How long a span of clips of this length is."""
    return num_clips * clip_seconds + (num_clips - 1) * GAP_SECONDS


def draw_span(duration_seconds: float, num_clips: int, generator: np.random.Generator) -> ClipSpan:
    """A span of random clip length (one draw for all clips) at a random place of a video.

    Where the video is too short for the longest clips, the length is drawn from what fits.

    Args:
        duration_seconds: of the video.
        num_clips: K.
        generator: advanced by two draws.

    Raises:
        ValueError: not even the shortest clips fit.

    Source: paper, pre-training details.
    """
    longest = _longest_clip(duration_seconds, num_clips)
    clip_seconds = generator.uniform(CLIP_SECONDS[0], longest)
    start_seconds = generator.uniform(0, max(0.0, duration_seconds - span_seconds(clip_seconds, num_clips)))
    return ClipSpan(float(start_seconds), float(clip_seconds), num_clips)


def fixed_spans(duration_seconds: float, num_clips: int) -> Iterator[ClipSpan]:
    """Spans of middle clip length for evaluation: the one in the middle of the video, then others to turn to.

    Raises:
        ValueError: not even the shortest clips fit.
    """
    clip_seconds = min(sum(CLIP_SECONDS) / 2, _longest_clip(duration_seconds, num_clips))
    room = max(0.0, duration_seconds - span_seconds(clip_seconds, num_clips))
    for place in (0.5, 0.25, 0.75, 0.0, 1.0):
        yield ClipSpan(place * room, clip_seconds, num_clips)


def _longest_clip(duration_seconds: float, num_clips: int) -> float:
    needed = span_seconds(CLIP_SECONDS[0], num_clips)
    if duration_seconds < needed:
        raise ValueError(
            f"a video of {duration_seconds:.3f} s is too short for {num_clips} clips: they need {needed:g} s at least"
        )
    return min(CLIP_SECONDS[1], (duration_seconds - (num_clips - 1) * GAP_SECONDS) / num_clips)
