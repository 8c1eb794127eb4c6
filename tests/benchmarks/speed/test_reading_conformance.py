"""The tables of readers: on files that make readers fail, and of the time they take."""

import numpy as np

from benchmarks.speed.reading.conformance import format_table, judge, judge_file
from benchmarks.speed.reading.rivals import list_runs
from benchmarks.speed.reading.video_reading import format_table as format_times
from benchmarks.speed.reading.video_reading import measure_file
from tests.support.conformance_videos import WRITERS
from tests.support.video_files import write_video

EXPECTED = [np.full((4, 4, 3), value, np.uint8) for value in (10, 200)]


def refuse():
    raise ValueError("no")


def test_frames_are_right_wrong_or_refused():
    assert judge(lambda: np.stack(EXPECTED), EXPECTED) == "right"
    assert judge(lambda: np.stack(EXPECTED[::-1]), EXPECTED) == "wrong"
    assert judge(lambda: np.stack(EXPECTED[:1]), EXPECTED) == "wrong"
    assert judge(refuse, EXPECTED) == "refused"


def test_this_reader_is_right_and_the_table_counts(tmp_path):
    runs = list_runs(["ours", "transformers"], [1, 2])
    row = judge_file(WRITERS["swapped_times"](tmp_path / "video"), runs)
    assert row["ours, 1 threads"] == row["ours, 2 threads"] == "right"
    table = format_table({"readers": {"ours": ""}, "runs": list(runs), "files": {"video": row}})
    assert "| **right**, of 1 | 1 | 1 |" in table


def test_times_stand_beside_which_frames_are_wrong(tmp_path):
    runs = list_runs(["ours", "opencv"], [1])
    row = measure_file(write_video(tmp_path / "a.mp4", num_frames=30), {"ours, 1 threads": runs["ours, 1 threads"]}, 2)
    assert row["ours, 1 threads"]["outcome"] == "right" and row["ours, 1 threads"]["repeats"] == 2
    row["ours, 1 threads"]["median_ms"] = 1234.5
    row["opencv, 1 threads"] = {"outcome": "wrong", "median_ms": 5.0}
    row["decord"] = {"outcome": "refused"}
    assert format_times({"a.mp4": row}, [*runs, "decord"]).endswith("| a.mp4 | 1,234 | 5, wrong | refused |")
