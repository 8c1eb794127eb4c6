"""Where shots start, to the frame, and clips that contain no cut, from the builder to the training sample."""

import json
import shutil
import sys
from fractions import Fraction

import av
import datasets
import numpy as np
import pytest

from processing import TVTSv2VideoProcessor
from tests.support.built_rows import set_shots
from training.data_building.build_dataset import build_dataset
from training.data_building.pack_shards import pack_shards
from training.data_building.preview_clips import read_left_out
from training.data_building.shots import find_shots
from training.sources.built_dataset import BuiltDataset
from training.sources.clip_dataset import ClipDataset, ClipKey
from training.sources.shards import Shards

pytest.importorskip("scenedetect")
COLORS = ((200, 40, 40), (40, 40, 200), (30, 160, 60))


def write_shots(path, lengths, times_milliseconds):
    """Write shots of so many frames, each a color of its own with a square that moves through it."""
    shots = np.repeat(np.arange(len(lengths)), lengths).tolist()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, (shot, time) in enumerate(zip(shots, times_milliseconds, strict=True)):
            image = np.full((64, 96, 3), COLORS[shot % 3], np.uint8)
            left = number % 80
            image[20:36, left : left + 16] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_cuts_are_found_to_the_frame(tmp_path):
    """Frames at uneven times; the shots at both ends have a single frame."""
    times = np.cumsum(np.resize([33, 34, 60], 120)) + 500
    write_shots(tmp_path / "video.mp4", (1, 39, 47, 32, 1), times)
    expected = times[[0, 1, 40, 87, 119]] - times[0]
    assert np.array(find_shots(tmp_path / "video.mp4")) * 1000 == pytest.approx(expected, abs=0.01)
    write_shots(tmp_path / "one.mp4", (30,), times[:30])
    assert find_shots(tmp_path / "one.mp4") == (0.0,)


@pytest.fixture(scope="module")
def video_folder(tmp_path_factory):
    """Half a minute with one cut, with none, and with one every two seconds; a word every 0.4 s."""
    folder = tmp_path_factory.mktemp("videos")
    for number, (name, lengths) in enumerate({"cut": (71, 79), "whole": (150,), "quick": (10,) * 15}.items()):
        write_shots(folder / f"{name}.mp4", lengths, range(0, 30_000, 200))
        words = [{"timestamp": [0.4 * k, 0.4 * k + 0.2], "text": f"word{number}x{k}"} for k in range(74)]
        (folder / f"{name}.json").write_text(json.dumps({"chunks": words}))
    return folder


@pytest.fixture(scope="module")
def dataset(video_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("dataset") / "out"
    report = build_dataset(video_folder, output, num_workers=1, heldout_ratio=0.0, shots=True)
    assert report["accepted"]["train"] == 2 and report["num_cuts"] == 1
    (quick,) = report["rejected"]["no place for the clips between its cuts"]
    assert quick["video"] == "quick.mp4" and "within the 15 shots" in quick["detail"]
    (shown,) = read_left_out({"format": "built", "dataset": output, "videos": video_folder})
    assert shown["video"] == "quick.mp4"
    return output


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_clip_contains_a_cut(video_folder, dataset, deterministic, monkeypatch):
    source = BuiltDataset(dataset, video_folder)
    assert [source[index].shots for index in range(2)] == [pytest.approx([0.0, 14.2]), [0.0]]
    clips = ClipDataset(source, TVTSv2VideoProcessor(crop_size=32), deterministic=deterministic)
    monkeypatch.setattr("training.sources.clip_dataset.read_clip", lambda *arguments, **options: None)
    spans = {tuple(clips[ClipKey(epoch, 0)]["transcripts"]) for epoch in range(50)}
    assert len(spans) == 1 if deterministic else len(spans) > 20
    for transcripts in spans:  # the word at 14.0 s and the one at 14.4 s
        assert not any("word0x35 word0x36" in transcript for transcript in transcripts)


def test_shards_have_the_shots_and_are_of_one_dataset(video_folder, dataset, tmp_path):
    pack_shards(dataset, video_folder, tmp_path / "shards")
    packed = Shards(str(tmp_path / "shards"))
    shots = {packed[index].video_id: packed[index].shots for index in range(2)}
    assert shots == {"cut.mp4": pytest.approx([0.0, 14.2]), "whole.mp4": [0.0]}
    build_dataset(video_folder, tmp_path / "plain", num_workers=1, heldout_ratio=0.0)
    rows = datasets.load_dataset(str(tmp_path / "plain"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["shots"][:] == [None] * 3
    other = shutil.copytree(dataset, tmp_path / "other")
    set_shots(other, [0.0, 3.0])  # all else is equal
    for changed in (tmp_path / "plain", other):
        with pytest.raises(ValueError, match="holds shards of another dataset"):
            pack_shards(changed, video_folder, tmp_path / "shards")


def test_without_pyscenedetect(video_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    with pytest.raises(ValueError, match=r"needs PySceneDetect: pip install 'tvtsv2\[shots\]'"):
        build_dataset(video_folder, tmp_path / "out", shots=True)
