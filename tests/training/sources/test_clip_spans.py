"""Clip spans: lengths, gaps and places as the paper draws them."""

import numpy as np
import pytest

from training.sources.clip_spans import ClipSpan, draw_span, fixed_spans


def test_windows_by_hand():
    span = ClipSpan(start_seconds=2.0, clip_seconds=3.5, num_clips=4)
    assert span.windows() == [(2.0, 5.5), (6.5, 10.0), (11.0, 14.5), (15.5, 19.0)]
    assert span.end_seconds == 19.0


def test_draws_cover_lengths_and_places():
    spans = [draw_span(60.0, 4, np.random.default_rng(index)) for index in range(2000)]
    lengths, starts = np.array([[span.clip_seconds, span.start_seconds] for span in spans]).T
    assert 3.0 <= lengths.min() < 3.02 and 4.98 < lengths.max() <= 5.0 and abs(lengths.mean() - 4) < 0.05
    assert starts.min() >= 0 and max(span.end_seconds for span in spans) <= 60.0
    places = starts / (60.0 - np.array([span.end_seconds - span.start_seconds for span in spans]))
    assert np.abs(np.histogram(places, 4, (0, 1))[0] / 2000 - 0.25).max() < 0.04


@pytest.mark.parametrize("duration", [15.0, 15.001, 17.3, 23.0])
def test_short_videos_get_shorter_clips_that_fit(duration):
    spans = [draw_span(duration, 4, np.random.default_rng(index)) for index in range(200)]
    spans += list(fixed_spans(duration, 4))
    for span in spans:
        assert span.start_seconds >= 0 and span.end_seconds <= duration + 1e-9 and span.clip_seconds >= 3.0


def test_too_short_videos_are_refused():
    with pytest.raises(ValueError, match=r"14\.900 s is too short for 4 clips: they need 15 s"):
        draw_span(14.9, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="too short"):
        next(fixed_spans(14.9, 4))


def test_fixed_spans_begin_with_the_middle():
    first = next(fixed_spans(39.0, 4))
    assert first == ClipSpan(start_seconds=10.0, clip_seconds=4.0, num_clips=4)
