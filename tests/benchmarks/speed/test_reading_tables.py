"""The tables of the reading benchmark are made from its rows."""

from benchmarks.speed.reading.tables import write_tables


def test_tables_show_times_ratios_and_which_frames_are_wrong(tmp_path):
    def result(milliseconds: float, same: int = 12) -> dict:
        return {"same": same, "equal": same, "cores_ms": 1.0, "median_ms": milliseconds}

    rows = {
        "a.mp4": {"readers": {"ours, 2 threads": result(10.0), "transformers": result(300.0)}},
        "b.mp4": {"readers": {"ours, 2 threads": result(10.0), "opencv, 2 threads": result(5.0, same=3)}},
    }
    write_tables({"device": "a device", "note": "", "rows": rows}, tmp_path / "record.md")
    text = (tmp_path / "record.md").read_text()
    assert "| a.mp4 | 10 (30.0) | 300 (1.0) |  |" in text
    assert "5, 3 of 12 right" in text and "1, 3 of 12 right" in text  # time passed, and of all cores
    assert text.count(" of 12 right") == 2
