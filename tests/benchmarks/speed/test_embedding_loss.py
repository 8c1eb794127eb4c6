"""What faster embeddings lose: the metrics on known embeddings, and the command on a small model."""

import csv
import json

import numpy as np
import pytest

from benchmarks.speed import embedding_loss
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video


def test_metrics_of_known_embeddings():
    exact = np.eye(20, dtype=np.float32)
    texts = np.roll(exact, 1, axis=0) * 0.5 + exact
    assert embedding_loss.compare(texts, exact, exact) == {"recall@10": 1.0, "R@1": 1.0, "cosine": 1.0}
    other = embedding_loss.compare(texts, exact, np.roll(exact, 1, axis=0))
    assert other["R@1"] == 0.0 and other["cosine"] == 0.0 and other["recall@10"] < 1


def test_the_command_compares_each_choice_with_float32(tmp_path, capsys):
    model = write_small_folder(tmp_path / "model")
    rows = [["caption", "path"]]
    for index in range(12):
        path = write_video(tmp_path / f"{index}.mp4", num_frames=4 + index, height=48, width=64)
        rows.append([f"video number {index}", path.name])
    with open(tmp_path / "table.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    record = tmp_path / "record.json"
    arguments = [str(model), str(tmp_path / "table.csv"), "--choices", "bfloat16", "keep 0.5", "--record", str(record)]
    embedding_loss.main(arguments)
    losses = json.loads(record.read_text())["losses"]
    assert list(losses) == ["float32", "bfloat16", "keep 0.5"]
    assert losses["float32"]["recall@10"] == 1 and losses["float32"]["cosine"] == pytest.approx(1)
    assert 0.99 < losses["bfloat16"]["cosine"] < 1 and losses["keep 0.5"]["cosine"] < losses["bfloat16"]["cosine"]
    assert '"keep 0.5"' in capsys.readouterr().out
