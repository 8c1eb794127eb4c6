"""Embeddings made elsewhere."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.evaluation.embeddings.embedding_file import EmbeddingFile, write_embedding_file


def test_round_trip(tmp_path):
    file = tmp_path / "imagebind.safetensors"
    videos = {"a.mp4": np.array([1.0, 2.0]), "größe": np.array([3.0, 4.0])}
    texts = {"a caption": np.array([5.0, 6.0]), "日本": np.array([7.0, 8.0])}
    write_embedding_file(file, videos, texts, {"model": "ImageBind", "num_frames": 2})
    opened = EmbeddingFile(file)
    assert {name: row.tolist() for name, row in opened.find_videos(("größe", "absent")).items()} == {"größe": [3, 4]}
    assert opened.embed_texts(["日本", "a caption"]).tolist() == [[7, 8], [5, 6]]
    assert opened.description["made_elsewhere"] == {"model": "ImageBind", "num_frames": 2}
    assert opened.description["name"] == "imagebind.safetensors"
    with pytest.raises(ValueError, match="lacks 1 of 2 texts, such as 'other'"):
        opened.embed_texts(["日本", "other"])


def test_files_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError):
        EmbeddingFile(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(ValueError, match="no file of embeddings"):
        EmbeddingFile(tmp_path / "text.safetensors")
    rows = np.zeros((2, 3), np.float32)
    save_file({"video_embeddings": rows, "text_embeddings": rows}, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="no file of embeddings"):
        EmbeddingFile(tmp_path / "bare.safetensors")
    for videos, message in (('["a"]', "1 video names for embeddings of shape"), ('["a", "a"]', "more than once")):
        tensors = {"video_embeddings": rows, "text_embeddings": rows}
        save_file(tensors, tmp_path / "bad.safetensors", metadata={"videos": videos, "texts": '["x", "y"]'})
        with pytest.raises(ValueError, match=message):
            EmbeddingFile(tmp_path / "bad.safetensors")
