"""What is measured of a source, and a source described wrongly."""

import json

import pytest

from tests.support.packed_videos import pack_videos
from training.cost import reading_speed


def test_command_line(tmp_path, monkeypatch, capsys):
    pack_videos(tmp_path, 2)
    source = json.dumps({"format": "built", "dataset": str(tmp_path / "dataset"), "videos": str(tmp_path / "videos")})
    (tmp_path / "videos" / "train000001.mp4").write_bytes(b"x")
    monkeypatch.setattr("sys.argv", ["reading_speed", source, "--num_samples", "5", "--crop_size", "16"])
    reading_speed.main()
    result = json.loads(capsys.readouterr().out)
    assert result["num_items"] == 2 and 0 < result["num_broken"] < 6
    assert result["samples_per_second"] > 0 and result["core_seconds_per_sample"] > 0


def test_a_source_is_a_mapping(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["reading_speed", "videos"])
    with pytest.raises(SystemExit):
        reading_speed.main()
    assert "A source is a mapping" in capsys.readouterr().err
