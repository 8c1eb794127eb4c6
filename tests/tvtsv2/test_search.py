"""`tvtsv2 search` against a plain loop over all rows; moments, thumbnails, the index, and refusals."""

import json

import numpy as np
import PIL.Image
import pytest
import torch
from torch.nn.functional import cosine_similarity

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main
from tvtsv2.store import nearest
from tvtsv2.store.embedding_store import EmbeddingStore, Row, ShardWriter
from tvtsv2.store.nearest import find_nearest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, five videos, and stores of whole videos and of windows."""
    folder = tmp_path_factory.mktemp("search")
    write_small_folder(folder / "model")
    (folder / "videos").mkdir()
    for index in range(5):
        write_video(folder / "videos" / f"{index}.mp4", num_frames=12 + 7 * index, width=48 + 16 * (index % 3))
    embed = ["embed", str(folder / "model"), str(folder / "videos")]
    assert main([*embed, str(folder / "store"), "--shard_size", "2"]) == 0
    assert main([*embed, str(folder / "moments"), "--windows", "0.4", "--shard_size", "4"]) == 0
    return folder


def search(capsys, *arguments) -> list[dict]:
    capsys.readouterr()
    assert main(["search", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@torch.no_grad()
def test_a_text_finds_what_a_loop_over_all_files_finds(folder, capsys):
    model, processor = TVTSv2Model.from_pretrained(folder / "model"), small_processor()
    text = model.get_text_features(**processor(text=["red circle"], return_tensors="pt")).pooler_output
    expected = {}
    for path in (folder / "videos").iterdir():
        video = model.get_video_features(**processor(videos=str(path), return_tensors="pt")).pooler_output
        expected[path.name] = float(cosine_similarity(video, text))
    hits = search(capsys, folder / "store", "red circle")
    assert [hit["path"] for hit in hits] == sorted(expected, key=expected.get, reverse=True)
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(expected.values(), reverse=True), abs=2e-4)
    assert hits[:2] == search(capsys, folder / "store", "red circle", "--top", 2)


def test_an_example_finds_itself(folder, capsys):
    hits = search(capsys, folder / "store", "--video", folder / "videos" / "3.mp4", "--top", 1)
    assert hits[0]["path"] == "3.mp4" and hits[0]["score"] == pytest.approx(1, abs=1e-4)


def test_moments_with_thumbnails(folder, tmp_path, capsys):
    hits = search(capsys, folder / "moments", "blue square", "--top", 3, "--thumbnails", tmp_path / "hits")
    for hit in hits:
        assert 0 <= hit["start_seconds"] < hit["end_seconds"] <= hit["start_seconds"] + 0.4 + 1e-9
        with PIL.Image.open(hit["thumbnail"]) as image:
            assert image.format == "JPEG" and image.height == 180
    best = search(capsys, folder / "moments", "blue square", "--best_moment")
    assert sorted(hit["path"] for hit in best) == [f"{index}.mp4" for index in range(5)]
    assert best[0] == {key: value for key, value in hits[0].items() if key != "thumbnail"}
    # A video that is gone costs its picture only.
    hits = search(capsys, folder / "moments", "star", "--thumbnails", tmp_path / "none", "--videos", tmp_path)
    assert all(hit["thumbnail"] is None for hit in hits)


def test_the_table_for_people(folder, capsys):
    assert main(["search", str(folder / "moments"), "star", "--top", "1"]) == 0
    header, line = capsys.readouterr().out.splitlines()[-2:]
    assert header.split() == ["score", "moment", "video"] and ".mp4" in line and "0:00." in line


def test_other_weights_are_refused(folder, tmp_path, capsys):
    other = TVTSv2Model.from_pretrained(folder / "model")
    with torch.no_grad():
        other.visual_projection.weight[0, 0] += 1e-3
    other.save_pretrained(tmp_path / "other")
    small_processor().save_pretrained(tmp_path / "other")
    assert main(["search", str(folder / "store"), "red", "--model", str(tmp_path / "other")]) == 1
    assert "other weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store"], "Give either"),
        (["store", "red", "--video", "x.mp4"], "Give either"),
        (["store", "red", "--top", "0"], "at least 1"),
        (["videos", "red"], "no store"),
        (["store", "--video", "missing.mp4"], r"missing.mp4"),
    ],
)
def test_wrong_arguments(folder, capsys, arguments, message):
    assert main(["search", str(folder / arguments[0]), *arguments[1:]]) == 1
    assert message in capsys.readouterr().err


def test_a_damaged_shard_is_named(folder, tmp_path, capsys):
    for path in (folder / "store").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "part-000-00001.safetensors").write_bytes(b"nothing")
    assert main(["search", str(tmp_path), "red"]) == 1
    assert "part-000-00001.safetensors" in capsys.readouterr().err


def test_the_index_finds_what_the_exact_search_finds(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    store = EmbeddingStore.claim(tmp_path / "store", {"videos": "."})
    generator = np.random.default_rng(0)
    with ShardWriter(store, 0, shard_size=300) as writer:
        for index in range(1000):
            row = Row(f"{index}.mp4", 1, 0.0, 1.0, [0], [0.0], 1.0, 8, 8)
            writer.add_video([row], generator.normal(size=(1, 16)) * generator.uniform(0.1, 9))
    queries = generator.normal(size=(5, 16))
    exact = [find_nearest(store, query, 5) for query in queries]
    monkeypatch.setattr(nearest, "FAISS_FROM_ROWS", 1000)
    by_index = [find_nearest(store, query, 5) for query in queries]
    (index_file,) = store.folder.glob("index-*.faiss")
    for hits, expected in zip(by_index, exact, strict=True):
        assert [(hit.shard, hit.row) for hit in hits] == [(hit.shard, hit.row) for hit in expected]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    # More rows: the old index is replaced, and the new row is found.
    with ShardWriter(store, 1, shard_size=300) as writer:
        writer.add_video([Row("new.mp4", 1, 0.0, 1.0, [0], [0.0], 1.0, 8, 8)], queries[:1] * 3)
    (best,) = find_nearest(store, queries[0], 1)
    assert best.shard.read_rows()[best.row]["path"] == "new.mp4"
    assert index_file not in list(store.folder.glob("index-*.faiss"))
