"""The folder that `tvtsv2 embed` writes: a LanceDB table, where its rows come from, and the list of failures.

    store/embeddings.json       provenance: model, transform, normalization, windows; also in the table's schema
    store/segments.lance/       a row per video or window, fields as in `schema_of`
    store/failures.jsonl        a line per video that could not be read: path, file_bytes, modified_ns and reason
    store/.queue/               which process works on which videos (`work_queue`)

All writes happen under the lock of the queue. P projection.
"""

import json
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from processing.atomic_files import write_whole
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.rows import Row
from tvtsv2.store.work_queue import WorkQueue

PROVENANCE_FILE, FAILURES_FILE, TABLE = "embeddings.json", "failures.jsonl", "segments"
FORMAT = "tvtsv2-embeddings/2"
# Without influence on values: may differ between a run and its continuation (the hash of the weights may not).
VOLATILE = ("software", "model.name", "videos")
# What a kill can lose: rows of whole videos that are computed and not yet written.
MAX_UNWRITTEN_ROWS = 1000
MAX_UNWRITTEN_SECONDS = 10.0
WRITES_PER_COMPACTION = 200  # each write adds a file
NAMES_PER_FILTER = 500


def schema_of(provenance: dict) -> pa.Schema:
    """Return the table's schema: the fields of `Row`, "embedding" (P,) float32, and the provenance as metadata."""
    fields = [
        ("path", pa.string()),
        ("file_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("frame_indices", pa.list_(pa.int32())),
        ("frame_seconds", pa.list_(pa.float64())),
        ("video_seconds", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("embedding", pa.list_(pa.float32(), provenance["embedding"]["dimension"])),
    ]
    return pa.schema(fields, metadata={"provenance": json.dumps(provenance)})


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
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{self.folder} is no store of embeddings: it has no {PROVENANCE_FILE}.") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
        if not isinstance(self.provenance, dict) or self.provenance.get("format") != FORMAT:
            raise ValueError(f"{file} is not of the format {FORMAT}; embed the videos into a new store.")
        try:
            self.table = lancedb.connect(self.folder).open_table(TABLE)
        except Exception as error:  # the library raises types of its own
            raise ValueError(f"The table of {self.folder} cannot be opened: {error}") from error

    @classmethod
    def claim(cls, folder: str | Path, provenance: dict) -> "EmbeddingStore":
        """Return the store of this provenance, new or as far as it got.

        Raises:
            ValueError: the folder holds other things, or embeddings made in another way; the differences are named.
        """
        folder = Path(folder)
        provenance = json.loads(json.dumps(provenance | {"format": FORMAT}))
        if not (folder / PROVENANCE_FILE).exists():
            if folder.exists() and (not folder.is_dir() or any(name != ".queue" for name in os.listdir(folder))):
                raise ValueError(f"{folder} is not empty and holds no store of embeddings; choose another folder.")
            folder.mkdir(parents=True, exist_ok=True)
            with WorkQueue(folder) as queue, queue.locked():
                if not (folder / PROVENANCE_FILE).exists():  # another process may have been here first
                    lancedb.connect(folder).create_table(TABLE, schema=schema_of(provenance), exist_ok=True)
                    write_whole(folder / PROVENANCE_FILE, json.dumps(provenance, indent=2) + "\n")
        store = cls(folder)
        changes = list(_differences(store.provenance, provenance))
        old, new = store.provenance.get("videos"), provenance.get("videos")
        if old is not None and old != new and Path(old).exists():
            changes.append(f"videos: {old!r} there, {new!r} now")
        if changes:
            raise ValueError(
                f"{folder} holds embeddings made in another way; use another folder, or the same settings.\n  "
                + "\n  ".join(changes)
            )
        if old != new:  # the videos have moved
            store.provenance["videos"] = new
            write_whole(folder / PROVENANCE_FILE, json.dumps(store.provenance, indent=2) + "\n")
        return store

    def embedded_files(self) -> dict[str, tuple[int, int]]:
        """Return size in bytes and time of modification in ns of every video that is in, by its path."""
        self.table.checkout_latest()
        rows = self.table.search().select(["path", "file_bytes", "modified_ns"]).to_arrow()
        columns = (rows[name].to_pylist() for name in ("path", "file_bytes", "modified_ns"))
        return {path: (file_bytes, modified_ns) for path, file_bytes, modified_ns in zip(*columns, strict=True)}

    def embeddings(self, paths: Collection[str]) -> dict[str, np.ndarray]:
        """Return the embeddings (P,) float32 of those of these videos that are in, by path; in no store of windows."""
        self.table.checkout_latest()
        dimension, found = self.provenance["embedding"]["dimension"], dict[str, np.ndarray]()
        for condition in _conditions(paths):
            rows = self.table.search().where(condition).select(["path", "embedding"]).to_arrow()
            matrix = rows["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, dimension)
            found |= zip(rows["path"].to_pylist(), matrix, strict=True)
        return found

    def failures(self) -> dict[str, dict]:
        """Return the lines of the list of failures by path; the last line on a path counts."""
        lines: dict[str, dict] = {}
        file = self.folder / FAILURES_FILE
        if file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    lines[entry["path"]] = {"file_bytes": None, "modified_ns": None, "reason": entry["reason"]} | entry
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # cut off when the process was killed: the video is tried again
        return lines

    def remove(self, paths: Collection[str]) -> None:
        """Remove the rows of videos, and their lines in the list of failures; the caller holds the queue's lock."""
        for condition in _conditions(paths):
            self.table.delete(condition)
        kept = [entry for path, entry in self.failures().items() if path not in paths]
        if (self.folder / FAILURES_FILE).is_file():
            write_whole(self.folder / FAILURES_FILE, "".join(json.dumps(entry) + "\n" for entry in kept))


def _conditions(paths: Iterable[str]) -> Iterator[str]:
    """Yield conditions in SQL that together hold for the rows of these paths; a name that is not UTF-8 has none."""
    valid = (path for path in paths if path.encode(errors="ignore").decode() == path)
    names = sorted(path.replace("'", "''") for path in valid)
    for start in range(0, len(names), NAMES_PER_FILTER):
        yield "path IN ('" + "', '".join(names[start : start + NAMES_PER_FILTER]) + "')"


def _differences(held: dict, wanted: dict, prefix: str = "") -> Iterator[str]:
    for key in sorted(held.keys() | wanted.keys()):
        if f"{prefix}{key}" in VOLATILE:
            continue
        old, new = held.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key}: {old!r} there, {new!r} now"


@dataclass
class StoreWriter:
    """Adds rows and failures to a store for one process; a context manager that writes the rest at its end.

    Args:
        store: what to add to.
        queue: the process's place in the queue, whose lock guards every write.
        replaced: paths whose old rows, or lines in the list of failures, are removed when there is a new result.
    """

    store: EmbeddingStore
    queue: WorkQueue
    replaced: Collection[str] = ()
    rows: list[Row] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)
    num_writes: int = 0

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        self.write()  # also after an error or Ctrl-C: what has been computed is worth keeping
        with self.queue.locked():
            if self.num_writes and not self.queue.others():
                self.store.table.optimize()

    def add_video(self, rows: list[Row], embeddings: np.ndarray) -> None:
        """Take all rows of a video, and their embeddings (rows, P).

        Raises:
            ValueError: an embedding is not finite.
        """
        assert len(rows) == len(embeddings) > 0
        if not np.isfinite(embeddings).all():
            raise ValueError(
                f"The embedding of {rows[0].path} is not finite (NaN or infinite); check the model's weights, and half "
                "precision against --dtype float32."
            )
        self.rows += rows
        self.embeddings.append(embeddings.astype(np.float32))
        if len(self.rows) >= MAX_UNWRITTEN_ROWS or time.monotonic() - self.written > MAX_UNWRITTEN_SECONDS:
            self.write()

    def add_failure(self, entry: VideoEntry, reason: str) -> None:
        """Append a line to the list of failures, at once."""
        file_bytes, modified_ns = entry.stamp() or (None, None)
        content = {"path": entry.name, "file_bytes": file_bytes, "modified_ns": modified_ns, "reason": reason}
        with self.queue.locked():
            if entry.name in self.replaced:
                self.store.remove([entry.name])
            with open(self.store.folder / FAILURES_FILE, "a+b") as file:
                is_cut_off = file.tell() > 0 and not _ends_with_newline(file)
                file.write(b"\n" * is_cut_off + json.dumps(content).encode() + b"\n")

    def write(self) -> None:
        """Write the rows that have been collected, as one version of the table: all or none of them appear."""
        self.written = time.monotonic()
        if not self.rows:
            return
        schema = self.store.table.schema
        columns = {name: [getattr(row, name) for row in self.rows] for name in schema.names if name != "embedding"}
        matrix = np.concatenate(self.embeddings)
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
        table = pa.table(columns | {"embedding": vectors}, schema=schema)
        paths = {row.path for row in self.rows}
        self.rows, self.embeddings = [], []
        with self.queue.locked():
            try:
                self.store.table.checkout_latest()
                if paths.intersection(self.replaced):
                    self.store.remove(paths.intersection(self.replaced))
                self.store.table.add(table)
                self.num_writes += 1
                if self.num_writes % WRITES_PER_COMPACTION == 0:
                    self.store.table.optimize()
            except Exception as error:  # the library raises types of its own, also for a full disk
                raise OSError(
                    f"The store {self.store.folder} cannot be written: {error}. Give the same command again when the "
                    "cause is removed; what was written before is kept."
                ) from error


def _ends_with_newline(file) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def sync(store: EmbeddingStore, names: Iterable[str]) -> int:
    """Remove all videos from a store that are not among `names`; return how many."""
    with WorkQueue(store.folder) as queue, queue.locked():
        gone = (store.embedded_files().keys() | store.failures().keys()) - set(names)
        store.remove(gone)
    return len(gone)
