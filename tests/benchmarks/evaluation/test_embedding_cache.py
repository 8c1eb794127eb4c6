"""Each file is embedded once per model and transform: changed files, broken ones, other runs on the same store."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.evaluation.embeddings import cache
from benchmarks.evaluation.embeddings.cache import embed_files, open_store
from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, load_embedder
from benchmarks.speed.hour import ReadingHere
from tests.support.benchmark_models import save_model
from tests.support.video_files import write_video
from tvtsv2.store.embedding_store import EmbeddingStore, StoreWriter
from tvtsv2.store.rows import Row
from tvtsv2.store.work_queue import WorkQueue


class BytesReader:
    """Reads a file as two numbers made of its bytes."""

    @staticmethod
    def read_frames(path):
        with open(path, "rb") as file:
            content = file.read()
        if content == b"broken":
            raise ValueError(f"{path} is broken")
        metadata = SimpleNamespace(frames_indices=[0], timestamps=[0.0], duration=1.0, width=1, height=1)
        return [(torch.tensor([float(len(content)), float(sum(content))]), metadata)]

    @staticmethod
    def normalize_frames(pixels):
        return pixels


class BytesEmbedder:
    """Embeds these numbers as they are; counts how often it is asked."""

    reader, device, dimension = BytesReader(), "cpu", 2

    def __init__(self, name="model", **description):
        self.description = {"name": name, "revision": name, "weight_hash": "0", **description}
        self.num_embedded = 0

    def embed_videos(self, pixels):
        self.num_embedded += len(pixels)
        return pixels


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr("tvtsv2.models.video_embedding.ReadingProcesses", ReadingHere)
    (tmp_path / "videos").mkdir()
    files = {name: tmp_path / "videos" / f"{name}.mp4" for name in ("a", "b's", "ü")}
    for name, path in files.items():
        path.write_bytes(name.encode() * 3)
    return files


def embed(files, embedder, tmp_path):
    embeddings, broken = embed_files(files, embedder, tmp_path / "cache", batch_size=2, num_workers=1)
    return {name: row.tolist() for name, row in embeddings.items()}, broken


def test_a_second_run_embeds_what_has_changed(files, tmp_path):
    first, again = BytesEmbedder(), BytesEmbedder("another name of the same weights")
    expected = {name: [3 * len(name.encode()), 3 * sum(name.encode())] for name in files}
    assert embed(files, first, tmp_path) == (expected, {}) and first.num_embedded == 3
    files["b's"].write_bytes(b"changed")
    expected["b's"] = [7, sum(b"changed")]
    twice = {**files, "another name of a": files["a"]}
    assert embed(twice, again, tmp_path) == (expected | {"another name of a": expected["a"]}, {})
    assert again.num_embedded == 1


def test_another_model_or_transform_has_a_store_of_its_own(files, tmp_path):
    for description in ({"num_frames": 12}, {"num_frames": 8}, {"num_frames": 8, "weight_hash": "1"}):
        embedder = BytesEmbedder(**description)
        embed(files, embedder, tmp_path)
        assert embedder.num_embedded == 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_broken_videos_are_told_without_a_path_and_tried_again(files, tmp_path):
    files["b's"].write_bytes(b"broken")
    files["absent"] = tmp_path / "absent.mp4"
    for _ in range(2):
        embeddings, broken = embed(files, BytesEmbedder(), tmp_path)
        assert set(embeddings) == {"a", "ü"} and broken["b's"] == "b's.mp4 is broken"
        assert "No such file" in broken["absent"] and str(tmp_path) not in broken["absent"]
    files["b's"].write_bytes(b"mended")
    assert set(embed(files, BytesEmbedder(), tmp_path)[0]) == {"a", "b's", "ü"}


def test_embeddings_that_are_not_finite_are_an_error_and_not_kept(files, tmp_path):
    class NanEmbedder(BytesEmbedder):
        def embed_videos(self, pixels):
            return super().embed_videos(pixels) * np.nan

    with pytest.raises(ValueError, match=r"embedding of .*\.mp4 is not finite"):
        embed(files, NanEmbedder(), tmp_path)
    good = BytesEmbedder()
    embed(files, good, tmp_path)
    assert good.num_embedded == 3


def test_videos_that_another_run_is_embedding_are_waited_for(files, tmp_path, monkeypatch):
    embedder, path = BytesEmbedder(), files["a"]
    store = open_store(tmp_path / "cache", embedder)
    entry = SimpleNamespace(name=str(path))
    other = WorkQueue(store.folder)
    assert list(other.take([entry], set)) == [entry]

    def write_and_leave(seconds):
        row = Row(str(path), 3, path.stat().st_mtime_ns, 0.0, 1.0, [0], [0.0], 1.0, 1, 1)
        with other, StoreWriter(EmbeddingStore(store.folder), other) as writer:
            writer.add_video([row], np.array([[3.0, 4.0]]))

    monkeypatch.setattr(cache, "time", SimpleNamespace(sleep=write_and_leave))
    embeddings, broken = embed(files, embedder, tmp_path)
    assert embeddings["a"] == [3, 4] and embedder.num_embedded == 2 and broken == {}


@pytest.mark.parametrize("family", ["tvtsv2", "clip"])
def test_videos_are_read_by_the_model_s_own_reader(family, tmp_path):
    embedder = load_embedder(str(save_model(family, tmp_path / "model")), EmbedderOptions())
    files = {str(n): write_video(tmp_path / f"{n}.mp4", num_frames=n, height=32, width=48) for n in (14, 6, 2)}
    files["bad"] = tmp_path / "bad.mp4"
    files["bad"].write_bytes(b"no video at all")
    embeddings, broken = embed(files, embedder, tmp_path)
    for name, row in embeddings.items():
        ((pixels, _),) = embedder.reader.read_frames(str(files[name]))
        expected = embedder.embed_videos(embedder.reader.normalize_frames(pixels)[None])[0]
        torch.testing.assert_close(torch.tensor(row), expected, rtol=1e-4, atol=1e-5)
    assert list(broken) == ["bad"] and "bad.mp4" in broken["bad"] and str(tmp_path) not in broken["bad"]
    table = open_store(tmp_path / "cache", embedder).table.to_arrow().to_pylist()
    assert {row["path"]: row["video_seconds"] for row in table} == {
        str(files[str(n)]): pytest.approx(n / 24) for n in (14, 6, 2)
    }
