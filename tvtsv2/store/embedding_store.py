"""The folder that `tvtsv2 embed` writes: shards of rows and embeddings, where they come from, and what failed.

    store/embeddings.json              provenance: model, transform, normalisation, windows, software
    store/part-000-00000.parquet       a row per video or window: path, times, frames taken
    store/part-000-00000.safetensors   "embeddings" (rows, P) float32, in the order of the rows
    store/failures-000.jsonl           a line per video that could not be read: path and reason

The three digits are the process that wrote a file. A shard counts once its Parquet file is there, which is written
last; both files carry the provenance as well. P projection.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open
from safetensors.numpy import save

from processing.atomic_files import whole_file, write_whole

PROVENANCE_FILE = "embeddings.json"
FORMAT = "tvtsv2-embeddings/1"
# Decides nothing about values: may differ between a run and its continuation (the weights' hash may not).
VOLATILE = ("software", "model.name")

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("file_bytes", pa.int64()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("frame_indices", pa.list_(pa.int32())),
        ("frame_seconds", pa.list_(pa.float64())),
        ("video_seconds", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One embedded video, or one window of it; times in seconds from the first frame. Fields as in `SCHEMA`."""

    path: str
    file_bytes: int
    start_seconds: float
    end_seconds: float
    frame_indices: list[int]
    frame_seconds: list[float]
    video_seconds: float
    width: int
    height: int


@dataclass(frozen=True)
class Shard:
    """A pair of files of a store."""

    table_file: Path

    @property
    def embeddings_file(self) -> Path:
        return self.table_file.with_suffix(".safetensors")

    def read_rows(self, columns: list[str] | None = None) -> list[dict]:
        """Returns the rows, with these columns or all."""
        return pq.read_table(self.table_file, columns=columns).to_pylist()

    def read_embeddings(self) -> np.ndarray:
        """Returns (rows, P) float32.

        Raises:
            ValueError: the file is missing, or is none of safetensors.
        """
        try:
            with safe_open(str(self.embeddings_file), framework="np") as file:
                return file.get_tensor("embeddings")
        except Exception as error:  # the library raises its own type, OSError and others
            raise ValueError(f"{self.embeddings_file} cannot be read: {error}") from error

    def __len__(self) -> int:
        return pq.read_metadata(self.table_file).num_rows


class EmbeddingStore:
    """A store to read, or to add to with `claim`.

    Raises:
        ValueError: the folder holds no store, or one of another format.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        file = self.folder / PROVENANCE_FILE
        try:
            self.provenance = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{self.folder} is no store of embeddings: it has no {PROVENANCE_FILE}.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
        if not isinstance(self.provenance, dict) or self.provenance.get("format") != FORMAT:
            raise ValueError(f"{file} is not of the format {FORMAT}.")

    @classmethod
    def claim(cls, folder: str | Path, provenance: dict) -> "EmbeddingStore":
        """Returns the store of this provenance, new or as far as it got.

        Raises:
            ValueError: the folder holds other things, or embeddings made in another way; the differences are named.
        """
        folder = Path(folder)
        provenance = json.loads(json.dumps(provenance | {"format": FORMAT}))
        if not (folder / PROVENANCE_FILE).exists():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise ValueError(f"{folder} is not empty and holds no store of embeddings; choose another folder.")
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / PROVENANCE_FILE, json.dumps(provenance, indent=2, ensure_ascii=False) + "\n")
        store = cls(folder)
        changes = list(_differences(store.provenance, provenance))
        if changes:
            raise ValueError(
                f"{folder} holds embeddings made in another way; use another folder, or the same settings.\n  "
                + "\n  ".join(changes)
            )
        return store

    def shards(self) -> list[Shard]:
        """Returns the complete shards, in a fixed order."""
        return [Shard(file) for file in sorted(self.folder.glob("part-*.parquet"))]

    def embedded_files(self) -> dict[str, int]:
        """Returns path and size in bytes of every video that is in."""
        rows = (row for shard in self.shards() for row in shard.read_rows(["path", "file_bytes"]))
        return {row["path"]: row["file_bytes"] for row in rows}

    def failures(self) -> dict[str, str]:
        """Returns path and reason of every video that could not be read; the last word on a path counts."""
        reasons = {}
        for ledger in sorted(self.folder.glob("failures-*.jsonl")):
            for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    reasons[entry["path"]] = entry["reason"]
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # a line that was cut off when the process was killed: the video is tried again
        return reasons


def _differences(held: dict, wanted: dict, prefix: str = "") -> Iterator[str]:
    for key in sorted(held.keys() | wanted.keys()):
        if f"{prefix}{key}" in VOLATILE:
            continue
        old, new = held.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old!r} there, {new!r} now"


class ShardWriter:
    """Adds shards and failures to a store, on behalf of one process; a context manager that ends with the last shard.

    Args:
        store: what to add to.
        process_index: makes this process's file names its own.
        shard_size: rows a shard; all rows of a video are in one shard, so some have more.

    Raises:
        ValueError: another process writes under the same index.
    """

    def __init__(self, store: EmbeddingStore, process_index: int, shard_size: int):
        self.store, self.process_index, self.shard_size = store, process_index, shard_size
        self.rows: list[Row] = []
        self.embeddings: list[np.ndarray] = []
        self.num_shards = len(list(store.folder.glob(f"part-{process_index:03d}-*.parquet")))
        self.ledger = store.folder / f"failures-{process_index:03d}.jsonl"
        self.lock = _lock(store.folder / f".lock-{process_index:03d}")

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            # Also after an error or Ctrl-C: what has been computed is worth keeping.
            self.write_shard()
        finally:
            self.lock.close()

    def add_video(self, rows: list[Row], embeddings: np.ndarray) -> None:
        """Takes all rows of a video, and their embeddings (rows, P)."""
        assert len(rows) == len(embeddings) > 0
        self.rows += rows
        self.embeddings.append(embeddings.astype(np.float32))
        if len(self.rows) >= self.shard_size:
            self.write_shard()

    def add_failure(self, path: str, reason: str) -> None:
        """Writes a line into the ledger, at once."""
        line = json.dumps({"path": path, "reason": reason}, ensure_ascii=False)
        with open(self.ledger, "a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                line = "\n" + line
            file.write(line.encode("utf-8", errors="replace") + b"\n")

    def write_shard(self) -> None:
        """Writes what has been collected; each file appears whole, the Parquet file last."""
        if not self.rows:
            return
        stem = self.store.folder / f"part-{self.process_index:03d}-{self.num_shards:05d}"
        metadata = {"provenance": json.dumps(self.store.provenance)}
        table = pa.Table.from_pylist([asdict(row) for row in self.rows], SCHEMA.with_metadata(metadata))
        # As bytes: safetensors' own files could be read by nobody but their owner, whatever the umask allows.
        matrix = save({"embeddings": np.concatenate(self.embeddings)}, metadata)
        for suffix, write in (
            (".safetensors", lambda file: Path(file).write_bytes(matrix)),
            (".parquet", lambda file: pq.write_table(table, file)),
        ):
            with whole_file(f"{stem}{suffix}") as temporary:
                write(temporary)
        self.num_shards += 1
        self.rows, self.embeddings = [], []


def _ends_with_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _lock(path: Path):
    """Returns the open lock file; the lock ends with the process, however that ends."""
    file = path.open("w")
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: two runs on one folder are the user's to avoid
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"Another process is writing to {path.parent}; wait for it, or stop it first.") from None
    return file
