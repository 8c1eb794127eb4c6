"""A video encoded anew is found by its embedding, and one that only resembles another is not."""

import json
import os

import av
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import write_small_folder
from training.data_building.build_dataset import build_dataset
from training.data_building.dataset_files import split_of
from training.data_building.preview_clips import read_left_out
from training.data_building.similar_videos import SimilarVideos, less_mean
from training.data_building.video_checks import VideoCheck
from training.narrated_shapes.corpus import CorpusConfig, build_corpus

CONFIG = CorpusConfig(num_train_videos=6, num_heldout_videos=0, num_train_captions=0, num_heldout_captions=0)


def encode_anew(source, target):
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream("libx264", rate=stream.average_rate, options={"crf": "35", "preset": "veryfast"})
        copy.width, copy.height, copy.pix_fmt = stream.width, stream.height, "yuv420p"
        for frame in old.decode(stream):
            new.mux(copy.encode(frame.reformat(format="yuv420p")))
        new.mux(copy.encode())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Six videos, two of them of a cosine of 0.94, a copy of the first with other words, and a model."""
    place = tmp_path_factory.mktemp("similar")
    source = build_corpus(place / "corpus", CONFIG, num_workers=1).folder / "videos" / "train"
    (place / "videos").mkdir()
    for number in range(6):
        (source / "data" / f"train{number:06d}.mp4").rename(place / "videos" / f"{number}.mp4")
        (source / "annotations" / f"train{number:06d}.json").rename(place / "videos" / f"{number}.json")
    encode_anew(place / "videos" / "0.mp4", place / "videos" / "copy.mp4")
    words = [{"timestamp": [0.3 * k, 0.3 * k + 0.2], "text": f"word{k}"} for k in range(90)]
    (place / "videos" / "copy.json").write_text(json.dumps({"chunks": words}))
    write_small_folder(place / "model")
    return place


def test_a_copy_is_in_neither_split(place, tmp_path, monkeypatch):
    videos, output = place / "videos", tmp_path / "out"
    train, heldout = (next(n for n in map(str, range(99)) if split_of(n, 0.5) == s) for s in ("train", "heldout"))
    groups = {f"{number}.mp4": train for number in range(6)} | {"copy.mp4": heldout}
    options = {"num_workers": 1, "heldout_ratio": 0.5, "groups": groups}
    assert build_dataset(videos, output, **options)["accepted"] == {"train": 6, "heldout": 1}
    options["duplicate_videos"] = str(place / "model")
    report = build_dataset(videos, output, **options)
    assert report["accepted"] == {"train": 6, "heldout": 0}
    (copy,) = report["rejected"]["looks like another video"]
    assert copy["video"] == "copy.mp4" and copy["detail"].startswith("as 0.mp4, cosine 0.99")
    assert "copy.mp4" not in pq.read_table(output / "data")["video"].to_pylist()
    (shown,) = read_left_out({"format": "built", "dataset": output, "videos": videos})
    assert shown["file"] == videos / "copy.mp4" and shown["text"] == copy["detail"]

    embedded, embed = [], TVTSv2Model.get_video_features
    monkeypatch.setattr(TVTSv2Model, "get_video_features", lambda *a, **k: embedded.append(1) or embed(*a, **k))
    (log,) = output.glob("embeddings-*.bin")
    os.truncate(log, log.stat().st_size - 5)  # as a kill leaves it
    assert build_dataset(videos, output, **options) == report and len(embedded) == 1
    assert build_dataset(videos, output, **options) == report and len(embedded) == 1


def test_one_without_an_embedding_is_rejected_with_the_reason():
    similar = SimilarVideos(torch.eye(2), {"a": 0, "b": 1}, {"c": "Cannot read video 'c.mp4'"})
    checks = [similar.mark(VideoCheck(f"{name}.mp4", "1", content_hash=name)) for name in "abca"]
    assert [check.reason for check in checks] == [None, None, "unreadable video", "looks like another video"]
    assert checks[2].detail == "Cannot read video 'c.mp4'" and checks[3].detail == "as a.mp4, cosine 1.000"


def test_what_all_embeddings_have_in_common_does_not_make_them_alike():
    rng = torch.Generator().manual_seed(0)
    common, own = torch.randn(64, generator=rng), 0.05 * torch.randn(200, 64, generator=rng)
    embeddings = torch.nn.functional.normalize(common + own, dim=-1)
    assert (embeddings @ embeddings.T).min() > 0.99
    unit = less_mean(embeddings)
    assert (unit @ unit.T - torch.eye(200)).max() < 0.9
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(200))
    assert less_mean(embeddings[:2]).prod(0).sum() > 0.9  # of two videos, little is known to be common


def test_no_such_model_is_an_error(place, tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        build_dataset(place / "videos", tmp_path, num_workers=1, duplicate_videos=str(place / "nowhere"))


def test_embeddings_that_are_not_finite_are_an_error(place, tmp_path):
    """One would make all cosines NaN, so that no video looked like another."""
    write_small_folder(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({name: weight * torch.nan for name, weight in weights.items()}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        build_dataset(place / "videos", tmp_path / "out", num_workers=1, duplicate_videos=str(tmp_path / "model"))


def test_a_model_without_some_of_its_weights_is_an_error(place, tmp_path):
    """They would be random: another model in each run."""
    write_small_folder(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.startswith("text_")}
    save_file(kept, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks .* weights, such as text_.*: give a video-text model"):
        build_dataset(place / "videos", tmp_path / "out", num_workers=1, duplicate_videos=str(tmp_path / "model"))
