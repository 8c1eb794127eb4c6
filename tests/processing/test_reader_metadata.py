"""Times of a video: clocks that jump, streams that start late, spans and windows."""

import numpy as np
import pytest

from processing import VideoWindowError, interval_midpoint_indices, read_video, read_windows
from processing import reader_sequential_tvtsv2 as reader_sequential
from tests.support.container_videos import write_late_video
from tests.support.video_files import decode_all, write_video


def everything(metadata):
    return range(metadata.total_num_frames)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_the_start_on_the_clock_of_the_file_pairs_words_and_frames(tmp_path, suffix):
    path = write_late_video(tmp_path / f"late{suffix}")
    _, metadata = read_video(path, lambda metadata: [0])
    assert metadata.start_seconds == pytest.approx(3.0, abs=0.1)  # sound starts before 0 by its encoder's delay
    offset = metadata.start_seconds
    # A word at 5 s of the file: the frame shown then is 2 s behind the first one.
    first, end = metadata.frame_span(offset + 2.0, offset + 3.0, on_file_clock=True)
    assert (first, end) == metadata.frame_span(2.0, 3.0) == (50, 75)
    # A span that starts before the video is cut; one that ends before it is outside.
    assert metadata.frame_span(1.0, offset + 1.0, on_file_clock=True) == (0, 25)
    with pytest.raises(VideoWindowError):
        metadata.frame_span(0.5, 2.0, on_file_clock=True)


def test_a_file_of_video_alone_starts_with_its_first_frame(tmp_path):
    late = write_video(tmp_path / "late.mp4", times_milliseconds=[5000 + 40 * index for index in range(60)])
    assert read_video(late, lambda metadata: [0])[1].start_seconds == 0


def write_jump(path, seconds):
    """Two transport streams joined, the second one's clock `seconds` later."""
    parts = []
    for number, start in enumerate((0, seconds)):
        part = path.with_name(f"{number}.ts")
        times = [round(1000 * start) + 40 * index for index in range(75)]
        parts.append(write_video(part, num_frames=75, times_milliseconds=times, options={"bf": "0"}).read_bytes())
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("seconds", [20_000, -1.0])
def test_jumps_of_a_clock_are_closed(tmp_path, seconds):
    path = write_jump(tmp_path / "jump.ts", seconds)
    _, metadata = read_video(path, everything)
    assert metadata.total_num_frames == 150 and metadata.duration == pytest.approx(6.0, abs=0.1)
    assert np.diff(metadata.frame_seconds).max() < 0.1


def test_long_gaps_of_other_files_stay_and_have_no_frames(tmp_path):
    times = [40 * index + 100_000 * (index >= 30) for index in range(60)]
    _, metadata = read_video(write_video(tmp_path / "slides.mp4", times_milliseconds=times), everything)
    assert metadata.duration > 100
    assert metadata.has_frames(0.0, 1.0) and metadata.has_frames(101.0, 102.0)
    assert not metadata.has_frames(2.0, 100.0)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])  # of which the second one gives times that do not rise
@pytest.mark.parametrize("num_windows", [1, 40])
def test_a_file_that_is_decoded_sequentially_is_decoded_once(tmp_path, monkeypatch, num_windows, codec):
    path = write_video(tmp_path / "video.avi", codec=codec, num_frames=120, fps=24, options={"bf": "2"})
    decodes = []
    original = reader_sequential.decode_sequentially
    monkeypatch.setattr(
        reader_sequential, "decode_sequentially", lambda *args: (decodes.append(args), original(*args))[1]
    )
    windows = [(0.1 * index, 0.1 * index + 0.5) for index in range(num_windows)]
    results = read_windows(path, windows, lambda metadata: interval_midpoint_indices(metadata.total_num_frames, 3))
    images, _ = decode_all(path)
    assert len(decodes) == 1
    for frames, metadata in results:
        assert metadata.reading_method == "sequential"
        assert (frames == np.stack([images[index] for index in metadata.frames_indices])).all()


def test_a_file_object_that_is_decoded_sequentially_reads_like_its_path(tmp_path):
    """The times announced are read through the same object, and must not move the decode elsewhere."""
    path = write_video(tmp_path / "video.avi", codec="mpeg4", num_frames=40, height=720, width=1280, gop_size=1)
    assert path.stat().st_size > 2**19  # more than is read ahead
    frames, metadata = read_video(path, lambda metadata: [0, 39])
    with path.open("rb") as file:
        same_frames, same_metadata = read_video(file, lambda metadata: [0, 39])
    assert same_metadata.total_num_frames == metadata.total_num_frames == 40 and (same_frames == frames).all()


def test_a_wrong_announcement_costs_a_second_decode(tmp_path):
    from tests.support.conformance_videos import WRITERS

    path = WRITERS["no_picture_h264"](tmp_path / "video")
    images, _ = decode_all(path)
    frames, metadata = read_video(path, everything)
    assert metadata.total_num_frames == len(images) == 48 and (frames == np.stack(images)).all()
