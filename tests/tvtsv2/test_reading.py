"""Reading for `tvtsv2 embed`: lists of videos, windows, and the processes that read."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pebble.pool.process import WorkerManager

from processing.video_files import FoundVideos
from tests.support.small_folder import small_processor
from tests.support.video_files import write_video
from tvtsv2.errors import ArgumentError
from tvtsv2.reading.reading_processes import ReadingFailed, ReadingProcesses, result_of
from tvtsv2.reading.segment_reading import Windows, plan_reads, read_whole, read_windows
from tvtsv2.reading.video_list import VideoEntry, list_videos


@pytest.mark.parametrize(
    ("seconds", "stride", "video_seconds", "expected"),
    [
        (10, 10, 25, [(0, 10), (10, 20), (20, 25)]),
        (10, 10, 20, [(0, 10), (10, 20)]),
        (10, 5, 20, [(0, 10), (5, 15), (10, 20)]),
        (10, 5, 21, [(0, 10), (5, 15), (10, 20), (15, 21)]),
        (10, 10, 4, [(0, 4)]),
        (1, 3, 5, [(0, 1), (3, 4)]),
    ],
)
def test_windows_reach_the_end(seconds, stride, video_seconds, expected):
    assert Windows(seconds, stride).of(video_seconds) == expected


def plan(path: Path, seconds: float) -> list[list[tuple[float, float]]]:
    return plan_reads(small_processor().video_processor, VideoEntry(path.name, path), Windows(seconds, seconds))


def test_a_file_that_is_decoded_sequentially_is_read_in_one_group(tmp_path, monkeypatch):
    monkeypatch.setattr("tvtsv2.reading.segment_reading.WINDOWS_PER_READ", 8)
    table = write_video(tmp_path / "table.mp4", num_frames=120)
    sequential = write_video(tmp_path / "sequential.avi", codec="mpeg4", num_frames=120)
    assert [len(group) for group in plan(table, 0.25)] == [8, 8, 4]
    assert [len(group) for group in plan(sequential, 0.25)] == [20]


def test_time_without_frames_makes_no_windows(tmp_path):
    times = [40 * index + 60_000_000 * (index >= 25) for index in range(50)]
    path = write_video(tmp_path / "gap.mkv", num_frames=50, times_milliseconds=times)
    (spans,) = plan(path, 1.0)
    assert [start for start, _ in spans] == pytest.approx([0.0, 60_001.0], abs=1.0)


def num_threads_of(reader) -> tuple[int, int]:
    """In a reading process: the threads of a read, and PyTorch's."""
    from processing.reader_tvtsv2 import MAX_THREADS

    return MAX_THREADS, torch.get_num_threads()


def process_id(reader) -> int:
    return os.getpid()


def hang(reader) -> None:
    time.sleep(3600)


def test_a_read_that_hangs_costs_one_file(monkeypatch):
    monkeypatch.setattr("tvtsv2.reading.reading_processes.MAX_SECONDS_PER_READ", 0.5)
    with ReadingProcesses(None, 1) as processes:
        hanging, next_read = processes.submit(hang), processes.submit(num_threads_of)
        with pytest.raises(ReadingFailed, match="longer than"):
            result_of(hanging)
        assert result_of(next_read) == (1, 1)
        process = result_of(processes.submit(process_id))
        with ReadingProcesses(None, 1) as others:
            assert result_of(others.submit(process_id)) != process
        assert result_of(processes.submit(process_id)) == process  # not ended with the others


def test_reading_processes_hand_over_frames(tmp_path, monkeypatch):
    running, close = [], WorkerManager.close_channels

    def close_channels(manager: WorkerManager) -> None:
        for process in manager.workers.values():
            process.join(1)
        running.extend(process for process in manager.workers.values() if process.is_alive())
        close(manager)

    monkeypatch.setattr(WorkerManager, "close_channels", close_channels)
    path = write_video(tmp_path / "video.mp4", num_frames=8, height=32, width=48)
    processor, entry = small_processor().video_processor, VideoEntry("0", path)
    with ReadingProcesses(processor, 1) as processes:
        segments = result_of(processes.submit(read_whole, entry))
        segments += result_of(processes.submit(read_windows, entry, [(0.0, 0.1), (0.1, 0.3)]))
        assert result_of(processes.submit(num_threads_of)) == (1, 1)
    assert not running  # one that starts without the pool's locks would print a traceback
    assert [segment.frames.dtype for segment in segments] == [np.uint8] * 3
    assert {segment.frames.shape[1:] for segment in segments} == {(24, 24, 3)}


def test_sync_refuses_a_list_of_videos_that_is_not_whole(tmp_path):
    write_video(tmp_path / "clip.mp4", num_frames=12)
    with pytest.raises(ArgumentError, match="is one video"):
        list_videos(tmp_path / "clip.mp4", complete=True)
    found = FoundVideos(["clip.mp4"], {"unreadable folder": ["closed"]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tvtsv2.reading.video_list.find_videos", lambda folder: found)
        with pytest.raises(ValueError, match=r"closed, which cannot be read"):
            list_videos(tmp_path, complete=True)
