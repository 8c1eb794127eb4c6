"""`tvtsv2 embed` in this process, and what its stores hold, read with nothing of this project."""

import json
from pathlib import Path

import lancedb
import numpy as np

from tvtsv2.main import main


def embed(*arguments) -> int:
    """The exit code of `tvtsv2 embed`."""
    return main(["embed", *map(str, arguments)])


def read_rows(folder: Path) -> list[dict]:
    """The rows of a store, read with nothing of this project."""
    return lancedb.connect(folder).open_table("segments").to_arrow().to_pylist()


def read_store(folder: Path) -> dict[tuple[str, float], np.ndarray]:
    """Embeddings by path and start."""
    embeddings = {}
    for row in read_rows(folder):
        key = (row["path"], row["start_seconds"])
        assert key not in embeddings, "embedded twice"
        embeddings[key] = np.array(row["embedding"], np.float32)
    return embeddings


def read_failures(folder: Path) -> dict[str, str]:
    lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}
