"""The benchmark of an hour of video, rehearsed on a minute; windows that share frames decode them once."""

import contextlib
import io
import json

from benchmarks.speed import hour
from tvtsv2.main import main as run_tvtsv2


def run_here(arguments: list[str]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert run_tvtsv2(arguments) == 0
    return output.getvalue()


def test_a_minute(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hour, "run_in_another_process", run_here)  # importing torch again would cost seconds
    record = tmp_path / "record.json"
    small = ["--minutes", "1", "--height", "90", "--small_model"]
    hour.main([*small, "--cache", str(tmp_path), "--record", str(record), "--", "--batch_size", "4"])
    found = json.loads(record.read_text())
    assert found["minutes"] == 1 and found["last_line"].startswith("limited by ")
    assert all(seconds > 0 for seconds in found["core_seconds_per_minute"].values())
    # Eleven windows of 10 s, one every 5 s: decoded one by one, 110 s of 60.
    assert 0.7 < found["packets_decoded"] < 1.05
