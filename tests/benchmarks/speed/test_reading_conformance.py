"""The table of readers on files that make readers fail."""

import numpy as np

from benchmarks.speed.reading.conformance import format_table, judge, judge_file
from benchmarks.speed.reading.rivals import list_runs
from tests.support.conformance_videos import WRITERS

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
