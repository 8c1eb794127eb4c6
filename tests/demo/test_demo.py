"""What the demo computes and draws; the page itself where gradio is installed."""

import importlib.util
import os
import shutil
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from tests.support.paths import ROOT
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video

DEMO = ROOT / "demo"


def load(name: str):
    """A module of the demo, which is a folder of scripts and no package."""
    spec = importlib.util.spec_from_file_location(name, DEMO / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up, and so do the demo's imports of each other
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo():
    """The demo's modules by name, forgotten afterwards."""
    yield {name: load(name) for name in ("engine", "pictures")}
    for name in ("engine", "pictures", "app"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("demo")
    write_small_folder(place / "model")
    (place / "gallery").mkdir()
    for index in range(3):
        write_video(place / "gallery" / f"video {index}.mp4", num_frames=50 + 10 * index)
    (place / "gallery" / "notes.txt").touch()
    (place / "gallery" / "broken.mp4").write_bytes(b"no video")
    (place / "gallery" / "._video 0.mp4").write_bytes(b"what a Mac leaves")
    (place / "gallery" / "a link.mp4").symlink_to(place / "gallery" / "a link.mp4")
    shutil.copyfile(place / "gallery" / "video 0.mp4", os.fsencode(place / "gallery") + b"/caf\xe9.mp4")
    return place


@pytest.fixture(scope="module")
def engine(demo, place):
    return demo["engine"].Engine(str(place / "model"), place / "gallery")


def test_scores_along_the_video(engine, place):
    scored = engine.score(str(place / "gallery" / "video 0.mp4"), "red circle\n\n  blue star \nred circle")
    assert scored.texts == ["red circle", "blue star"]
    assert scored.windows.shape == (2, len(scored.spans)) and len(scored.spans) == 4
    assert scored.spans[0][0] == 0 and scored.spans[-1][1] == pytest.approx(50 / 24)
    assert scored.windows.abs().max() <= 1.0001 and scored.whole.abs().max() <= 1.0001


def test_labels_sum_up_to_one(engine, place):
    probabilities = engine.classify(str(place / "gallery" / "video 0.mp4"), "red\nblue\ngreen", "a person {}")
    assert list(probabilities) == ["red", "blue", "green"] and sum(probabilities.values()) == pytest.approx(1)


def test_the_gallery_is_sorted_by_score(engine, place):
    hits = engine.search("red star")
    assert {video.path for video, _ in hits} == {path.resolve() for path in (place / "gallery").glob("video*.mp4")}
    scores = [score for _, score in hits]
    assert scores == sorted(scores, reverse=True)


def test_what_visitors_get_wrong_is_told_them(demo, engine, place, tmp_path, monkeypatch):
    error = demo["engine"].InputError
    video = str(place / "gallery" / "video 0.mp4")
    broken = tmp_path / "secret_upload_name.mp4"
    broken.write_bytes(b"no video")
    for arguments, message in (
        ((None, "red"), "Upload"),
        ((video, " \n "), "at least one"),
        ((video, "\n".join(map(str, range(13)))), "At most 12"),
        ((video, "x" * 201), "200 characters"),
        ((str(broken), "red"), "Your video cannot be read"),
    ):
        with pytest.raises(error, match=message) as raised:
            engine.score(*arguments)
        assert "secret_upload_name" not in str(raised.value)
    with pytest.raises(error, match="template"):
        engine.classify(video, "red", "a person")
    monkeypatch.setattr(demo["engine"], "MAX_MEGABYTES", 0)
    with pytest.raises(error, match="larger"):
        engine.score(video, "red")


def test_long_videos_are_refused(demo, place):
    engine = demo["engine"].Engine(str(place / "model"))
    engine.processor.video_processor.limits = {"max_duration_seconds": 1.0}
    with pytest.raises(demo["engine"].InputError, match="longer than 120 s"):
        engine.score(str(place / "gallery" / "video 0.mp4"), "red")
    with pytest.raises(demo["engine"].InputError, match="without a gallery"):
        engine.search("red")


def test_pictures_escape_texts_and_light_up_the_best(demo):
    scored = demo["engine"].Scored(
        ["<script>alert(1)</script>", "b"],
        torch.tensor([0.1, 0.3]),
        torch.tensor([[0.1, 0.2], [0.3, 0.5]]),
        [(0.0, 1.0), (1.0, 2.0)],
        [np.zeros((8, 8, 3), np.uint8)] * 2,
    )
    pictures = demo["pictures"]
    bars = pictures.draw_bars("Fits", "Cosine", scored.texts, scored.whole.tolist(), ["0.10", "0.30"])
    times = pictures.draw_timeline(scored)
    assert "<script>" not in bars + times and "&lt;script&gt;" in bars and "&lt;script&gt;" in times
    assert bars.index(">b<") < bars.index("&lt;script") and "width:30.0%" in bars, "bars have an absolute scale"
    assert times.count('class="peak"') == len(scored.texts) and times.count("--heat:0.25") == 1


def test_an_absent_text_looks_absent(demo):
    scored = demo["engine"].Scored(
        ["absent"],
        torch.tensor([-0.1]),
        torch.tensor([[-0.2, 0.0]]),
        [(0.0, 1.0), (1.0, 2.0)],
        [np.zeros((8, 8, 3), np.uint8)] * 2,
    )
    assert demo["pictures"].draw_timeline(scored).count("--heat:0.00") == 2
    assert "width:0.0%" in demo["pictures"].draw_bars("Fits", "Cosine", ["absent"], [-0.1], ["-0.10"])


def test_the_gallery_has_pictures_and_errors_are_escaped(demo, engine):
    page = demo["pictures"].draw_gallery(engine.gallery, str)
    assert page.count('poster="data:image/jpeg') == len(engine.gallery) == 3
    assert "&lt;b&gt;" in demo["pictures"].draw_error("<b>")


def test_the_page_is_built(demo, engine):
    pytest.importorskip("gradio")
    page = load("app").build_page(engine)
    assert {"score", "classify", "search"} <= {function.api_name for function in page.fns.values()}


def test_arguments_and_a_missing_gallery_are_errors(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    app = load("app")
    monkeypatch.setattr(sys, "argv", ["app.py", "--share"])
    with pytest.raises(SystemExit):
        app.main()
    assert "unrecognized arguments: --share" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("TVTSV2_GALLERY", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match=r"error: TVTSV2_GALLERY is .*nowhere, which is no folder"):
        app.main()


def test_old_uploads_are_deleted(tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    app = load("app")
    upload = tmp_path / "visitor" / "video.mp4"
    upload.parent.mkdir()
    upload.touch()

    def one_round_only(_):
        raise StopIteration

    monkeypatch.setattr(app.time, "sleep", one_round_only)
    with pytest.raises(StopIteration):
        app.sweep(tmp_path)
    assert upload.exists(), "deleted while it may still be in use"
    monkeypatch.setattr(app, "DELETE_AFTER_SECONDS", -1)
    with pytest.raises(StopIteration):
        app.sweep(tmp_path)
    assert not upload.exists()
