"""Each file is embedded once: changed files, killed runs, several processes, broken and odd videos."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState, debug_launcher

from benchmarks.evaluation.embeddings import cache as embedding_cache
from benchmarks.evaluation.embeddings.cache import EmbeddingCache, embed_files, fingerprint
from tests.support.video_files import write_video


class BytesEmbedder:
    """Embeds a file as numbers made of its bytes; counts how often it is asked."""

    def __init__(self, name="model", **description):
        self.description = {"name": name, "weight_hash": "0", **description}
        self.num_embedded = 0

    @staticmethod
    def reader(path):
        content = path.read_bytes()
        if content == b"broken":
            raise OSError(f"{path} is broken")
        return torch.tensor([float(len(content)), float(sum(content))])

    def embed_videos(self, videos):
        self.num_embedded += len(videos)
        return torch.stack(videos).numpy()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "videos").mkdir()
    files = {name: tmp_path / "videos" / f"{name}.mp4" for name in ("a", "b", "ü")}
    for name, path in files.items():
        path.write_bytes(name.encode() * 3)
    return files


def embed(files, embedder, tmp_path, num_workers=0):
    return embed_files(files, embedder, tmp_path / "cache", batch_size=2, num_workers=num_workers)


def test_second_run_embeds_nothing_and_returns_the_same(files, tmp_path):
    first, again = BytesEmbedder(), BytesEmbedder("another name of the same weights")
    embeddings, broken = embed(files, first, tmp_path)
    assert broken == {} and first.num_embedded == 3
    assert embeddings["a"].tolist() == [3, 3 * ord("a")]
    repeated, _ = embed(files, again, tmp_path)
    assert again.num_embedded == 0
    assert {name: row.tolist() for name, row in repeated.items()} == {n: r.tolist() for n, r in embeddings.items()}


def test_a_changed_file_is_embedded_again(files, tmp_path):
    embed(files, BytesEmbedder(), tmp_path)
    files["b"].write_bytes(b"changed")
    embedder = BytesEmbedder()
    embeddings, _ = embed(files, embedder, tmp_path)
    assert embedder.num_embedded == 1
    assert embeddings["a"].tolist() == [3, 3 * ord("a")]
    assert embeddings["b"].tolist() == [7, sum(b"changed")]


def test_another_model_or_transform_has_shards_of_its_own(files, tmp_path):
    embed(files, BytesEmbedder(num_frames=12), tmp_path)
    other = BytesEmbedder(num_frames=8)
    embed(files, other, tmp_path)
    assert other.num_embedded == 3
    assert fingerprint({"weight_hash": "0", "name": "x"}) == fingerprint({"weight_hash": "0", "name": "y"})
    assert fingerprint({"weight_hash": "0"}) != fingerprint({"weight_hash": "1"})


def test_broken_videos_are_told_and_tried_again(files, tmp_path):
    files["b"].write_bytes(b"broken")
    files["absent"] = tmp_path / "absent.mp4"
    files["pipe"] = tmp_path / "pipe.mp4"
    os.mkfifo(files["pipe"])
    embeddings, broken = embed(files, BytesEmbedder(), tmp_path)
    assert set(embeddings) == {"a", "ü"}
    assert broken == {"b": "b.mp4 is broken", **dict.fromkeys(("absent", "pipe"), "the file cannot be opened")}
    files["b"].write_bytes(b"mended")
    assert set(embed({"b": files["b"]}, BytesEmbedder(), tmp_path)[0]) == {"b"}


def test_embeddings_that_are_not_finite_are_an_error_and_not_kept(files, tmp_path):
    class NanEmbedder(BytesEmbedder):
        def embed_videos(self, videos):
            return super().embed_videos(videos) * np.nan

    with pytest.raises(ValueError, match=r"embedding of .*\.mp4 is not finite"):
        embed(files, NanEmbedder(), tmp_path)
    good = BytesEmbedder()
    embed(files, good, tmp_path)
    assert good.num_embedded == 3


def test_workers_read_as_this_process_does(files, tmp_path):
    alone, _ = embed(files, BytesEmbedder(), tmp_path)
    by_workers, _ = embed_files(files, BytesEmbedder(), tmp_path / "other", batch_size=1, num_workers=2)
    assert {name: row.tolist() for name, row in alone.items()} == {n: r.tolist() for n, r in by_workers.items()}


def test_a_broken_shard_is_named_and_a_half_written_one_is_not_seen(files, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_cache, "SHARD_SIZE", 1)
    embed(files, BytesEmbedder(), tmp_path)
    cache = EmbeddingCache(tmp_path / "cache", BytesEmbedder().description)
    shards = sorted(cache.folder.glob("*.safetensors"))
    assert len(shards) == 2  # a batch of two and a batch of one
    shards[0].rename(shards[0].with_suffix(".part"))
    embed(files, BytesEmbedder(), tmp_path)
    shards[1].write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"broken .* remove it"):
        embed(files, BytesEmbedder(), tmp_path)


def share(root: Path, seconds: float) -> None:
    """One process's part of embedding the videos below `root`, slowly, and what it got."""
    PartialState._reset_state()

    class SlowEmbedder(BytesEmbedder):
        def embed_videos(self, videos):
            time.sleep(seconds)
            return super().embed_videos(videos)

    embedding_cache.SHARD_SIZE = 2
    embedder = SlowEmbedder()
    embeddings, _ = embed({path.stem: path for path in sorted((root / "videos").iterdir())}, embedder, root)
    record = {"num_embedded": embedder.num_embedded, "embeddings": {n: row.tolist() for n, row in embeddings.items()}}
    (root / f"result-{embedding_cache.this_process().process_index}.json").write_text(json.dumps(record))


def make_videos(root: Path, contents: list[bytes]) -> None:
    (root / "videos").mkdir()
    for number, content in enumerate(contents):
        (root / "videos" / f"{number}.mp4").write_bytes(content)


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    make_videos(tmp_path, [bytes([number]) for number in range(10)])
    run = multiprocessing.get_context("fork").Process(target=share, args=(tmp_path, 0.5))
    run.start()
    while len(list((tmp_path / "cache").glob("*/*.safetensors"))) < 2:
        assert run.is_alive()
        time.sleep(0.02)
    run.kill()
    run.join()
    embedder = BytesEmbedder()
    files = {path.stem: path for path in (tmp_path / "videos").iterdir()}
    embeddings, _ = embed(files, embedder, tmp_path)
    assert 0 < embedder.num_embedded <= 6
    assert {name: row.tolist() for name, row in embeddings.items()} == {str(n): [1, n] for n in range(10)}


def test_two_processes_share_the_work_and_both_get_all(tmp_path):
    make_videos(tmp_path, [b"broken" if number == 4 else bytes([number]) for number in range(9)])
    debug_launcher(share, (tmp_path, 0), num_processes=2)
    records = [json.loads((tmp_path / f"result-{rank}.json").read_text()) for rank in (0, 1)]
    assert sorted(record["num_embedded"] for record in records) in ([3, 5], [4, 4])
    for record in records:
        assert record["embeddings"] == {str(number): [1, number] for number in range(9) if number != 4}


def test_videos_are_read_by_their_own_reader(tmp_path):
    """A file that is no video is broken, and says so without a path of this machine."""
    from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, load_embedder
    from tests.support.benchmark_models import save_model

    embedder = load_embedder(str(save_model("tvtsv2", tmp_path / "model")), EmbedderOptions())
    good = write_video(tmp_path / "good.mp4", num_frames=6, height=32, width=48, options={"bf": "0"})
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video at all")
    embeddings, broken = embed({"good": good, "bad": bad}, embedder, tmp_path)
    assert embeddings["good"].shape == (20,)
    assert list(broken) == ["bad"] and "bad.mp4" in broken["bad"] and str(tmp_path) not in broken["bad"]
