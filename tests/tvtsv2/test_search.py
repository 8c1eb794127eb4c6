"""`tvtsv2 search` against a plain loop over all rows; moments, thumbnails, the index, and refusals."""

import io
import json
import shutil

import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from torch.nn.functional import cosine_similarity

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main
from tvtsv2.search import _table, distinct_moments
from tvtsv2.store import nearest
from tvtsv2.store.embedding_store import EmbeddingStore, StoreWriter
from tvtsv2.store.nearest import find_nearest, measure_recall
from tvtsv2.store.rows import Row
from tvtsv2.store.work_queue import WorkQueue


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, five videos, and stores of whole videos and of windows."""
    folder = tmp_path_factory.mktemp("search")
    write_small_folder(folder / "model")
    (folder / "videos").mkdir()
    for index in range(5):
        write_video(folder / "videos" / f"{index}.mp4", num_frames=12 + 7 * index, width=48 + 16 * (index % 3))
    embed = ["embed", str(folder / "model"), str(folder / "videos")]
    assert main([*embed, str(folder / "store")]) == 0
    assert main([*embed, str(folder / "moments"), "--windows", "0.4"]) == 0
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
    ("arguments", "message", "code"),
    [
        (["store"], "Give either", 2),
        (["store", "red", "--video", "x.mp4"], "Give either", 2),
        (["store", "red", " "], "blank", 2),
        (["store", "red", "--top", "0"], "at least 1", 2),
        (["videos", "red"], "no store", 1),
        (["store", "red", "--where", "seconds < 1"], "video_seconds", 2),
        (["store", "red", "--where", "video_seconds <"], "is no condition on path, file_bytes", 2),
        (["store", "--no_such_option"], "error: ", 2),
        (["store", "--video", "missing.mp4"], r"missing.mp4", 1),
    ],
)
def test_wrong_arguments(folder, capsys, arguments, message, code):
    try:
        assert main(["search", str(folder / arguments[0]), *arguments[1:]]) == code
    except SystemExit as stop:
        assert stop.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_several_texts_filters_and_an_open_session(folder, capsys, monkeypatch):
    texts = ["red circle", "star"]
    answers = search(capsys, folder / "store", *texts, "--top", 2)
    assert [answer["query"] for answer in answers] == texts
    assert [answer["hits"] for answer in answers] == [
        search(capsys, folder / "store", text, "--top", 2) for text in texts
    ]
    hits = search(capsys, folder / "store", "star", "--where", "video_seconds < 1")
    assert sorted(hit["path"] for hit in hits) == ["0.mp4", "1.mp4"]  # of 12 and 19 frames, at 24 per second
    monkeypatch.setattr("sys.stdin", io.StringIO("red circle\n\nstar\n"))
    assert main(["search", str(folder / "store"), "--interactive", "--top", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if ".mp4" in line] == [answer["hits"][0]["path"] for answer in answers]


def test_of_overlapping_moments_the_best_is_kept():
    spans = [("a", 10, 20), ("a", 5, 15), ("b", 5, 15), ("a", 20, 30), ("a", 0, 10), ("a", 15, 25)]
    rows = [{"path": path, "start_seconds": start, "end_seconds": end} for path, start, end in spans]
    assert distinct_moments(rows, one_per_video=False) == [rows[0], rows[2], rows[3], rows[4]]
    assert distinct_moments(rows, one_per_video=True) == [rows[0], rows[2]]


def test_names_of_files_stay_on_their_line():
    hit = {"path": "a\nb\x1b[2J\u202e é.mp4", "score": 0.5, "start_seconds": 0, "end_seconds": 1}
    assert _table([hit]).splitlines()[1:] == [" 0.500  0:00.0 - 0:01.0     a\\nb\\x1b[2J\\u202e é.mp4"]


def test_a_store_becomes_one_parquet_file(folder, tmp_path):
    assert main(["export", str(folder / "store"), str(tmp_path / "rows.parquet"), "--format", "parquet"]) == 0
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert sorted(table["path"].to_pylist()) == [f"{index}.mp4" for index in range(5)]
    assert len(table["embedding"][0]) == 20 and b"provenance" in table.schema.metadata


def test_a_damaged_table_is_named(folder, tmp_path, capsys):
    shutil.copytree(folder / "store", tmp_path / "store")
    for file in (tmp_path / "store" / "segments.lance" / "data").iterdir():
        file.write_bytes(b"nothing")
    assert main(["search", str(tmp_path / "store"), "red"]) == 1
    assert "cannot be searched" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "store" / "segments.lance")
    assert main(["search", str(tmp_path / "store"), "red"]) == 1
    assert "cannot be opened" in capsys.readouterr().err


def test_the_index_finds_what_the_exact_search_finds(tmp_path, monkeypatch, capsys):
    store = EmbeddingStore.claim(tmp_path / "store", {"videos": ".", "embedding": {"dimension": 16}})
    generator = np.random.default_rng(0)

    def add(names, embeddings):
        with WorkQueue(store.folder) as queue, StoreWriter(store, queue) as writer:
            for name, embedding in zip(names, embeddings, strict=True):
                writer.add_video([Row(name, 1, 1, 0.0, 1.0, [0], [0.0], 1.0, 8, 8)], embedding[None])

    add([f"{index}.mp4" for index in range(1000)], generator.normal(size=(1000, 16)) * generator.uniform(0.1, 9))
    queries = generator.normal(size=(5, 16))
    exact = [find_nearest(store, query, 5) for query in queries]
    assert not store.table.list_indices()
    monkeypatch.setattr(nearest, "INDEX_FROM_ROWS", 1000)
    by_index = [find_nearest(store, query, 5) for query in queries]
    assert store.table.list_indices() and "recall@10" in capsys.readouterr().out
    assert measure_recall(store) > 0.95
    for hits, expected in zip(by_index, exact, strict=True):
        assert [hit["path"] for hit in hits] == [hit["path"] for hit in expected]
        assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in expected], abs=1e-5)
    # A row that has come since is found as well.
    add(["new.mp4"], queries[:1] * 3)
    (best,) = find_nearest(store, queries[0], 1)
    assert best["path"] == "new.mp4"
