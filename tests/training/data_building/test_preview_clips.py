"""The preview sheet shows items and errors."""

import json
import sys

import pytest
from PIL import Image

from training.data_building import preview_clips
from training.narrated_shapes.corpus import CorpusConfig, build_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = CorpusConfig(num_train_videos=2, num_heldout_videos=0, num_train_captions=2, num_heldout_captions=0)
    corpus = build_corpus(tmp_path_factory.mktemp("corpus"), config, num_workers=1)
    (corpus.folder / "videos/train/data/train000001.mp4").write_bytes(b"no video")
    return corpus


@pytest.mark.parametrize("form, summary", [("yt_temporal", "2 of 2 videos, 1 of them unusable"), ("webvid", "2 of 2")])
def test_sheet_from_the_command_line(corpus, tmp_path, monkeypatch, capsys, form, summary):
    source = {
        "yt_temporal": {"list_file": str(corpus.list_file("train")), "root": str(corpus.folder)},
        "webvid": {"table": str(corpus.caption_table("train")), "root": str(corpus.caption_root)},
    }[form]
    output = tmp_path / "sheet.png"
    arguments = ["preview", json.dumps({"format": form, **source}), "--output", output, "--crop_size", 32]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    preview_clips.main()
    assert summary in capsys.readouterr().out
    colors = {color for _, color in Image.open(output).convert("RGB").getcolors(1 << 20)}
    assert len(colors) > 500  # frames, not a blank sheet
    assert ((178, 34, 34) in colors) == (form == "yt_temporal")  # the error's color


def test_a_source_described_wrongly_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["preview", "videos"])
    with pytest.raises(SystemExit, match=r"^error: A source is a mapping whose format is one of .*got 'videos'"):
        preview_clips.main()
