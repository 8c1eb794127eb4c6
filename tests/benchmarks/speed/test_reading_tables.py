"""The bars of the reading benchmark are judged from its rows."""

from benchmarks.speed.reading.tables import judge_bars, write_tables


def row(**milliseconds):
    names = {"ours": "ours, 2 threads", "torchcodec": "torchcodec exact, 2 threads", "transformers": "transformers"}
    names["opencv"] = "opencv, 2 threads"
    result = {"same": 12, "equal": 12, "cores_ms": 1.0}
    readers = {names[name]: result | {"median_ms": time} for name, time in milliseconds.items()}
    return {"readers": readers}


ROWS = {
    "a_600s.mp4": row(ours=10.0, transformers=300.0, torchcodec=20.0),
    "b_600s.mp4": row(ours=10.0, transformers=199.0, torchcodec=20.0, opencv=8.0),
    "c_600s.webm": row(ours=10.0, torchcodec=14.0),
    "d_10s.mp4": row(ours=10.0, transformers=5.0),
}


def test_files_that_miss_a_bar_are_named():
    first, second, third = judge_bars(ROWS).splitlines()
    assert "reached in 1 of 2" in first and "missed on b_600s.mp4 (19.90, 2 threads)" in first
    assert "no such rival read c_600s.webm" in first and "d_10s" not in first
    assert "reached in 2 of 3" in second and "c_600s.webm (1.40, 2 threads)" in second
    assert "b_600s.mp4 (0.80, 2 threads), d_10s.mp4 (0.50, 2 threads)" in third and "a_600s" not in third


def test_tables_show_which_frames_are_wrong(tmp_path):
    wrong = {"e_10s.mp4": row(ours=10.0, opencv=5.0)}
    wrong["e_10s.mp4"]["readers"]["opencv, 2 threads"]["same"] = 3
    write_tables({"device": "a device", "note": "", "not_run": [], "rows": ROWS | wrong}, tmp_path / "record.md")
    text = (tmp_path / "record.md").read_text()
    assert "5, 3 of 12 right" in text and "1, 3 of 12 right" in text  # time passed, and of all cores
    assert text.count(" of 12 right") == 2
