"""The rows of a store that are nearest to a query, by cosine.

Exact, shard by shard, so that memory stays at one shard. In a store of `FAISS_FROM_ROWS` rows and more, and where faiss
is installed, an index finds candidates, which are then ranked by their exact cosines. P projection.
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from processing.atomic_files import whole_file
from tvtsv2.store.embedding_store import EmbeddingStore, Shard

FAISS_FROM_ROWS = 500_000
CANDIDATES_PER_HIT = 10


@dataclass(frozen=True)
class Hit:
    """A row of a store and its cosine with the query."""

    score: float
    shard: Shard
    row: int


def find_nearest(store: EmbeddingStore, query: np.ndarray, top_k: int) -> list[Hit]:
    """Returns up to `top_k` hits, best first; equal ones in the order of the store.

    Args:
        query: (P,), of any length.

    Raises:
        ValueError: the store is empty, or its embeddings are of another width.
    """
    shards = store.shards()
    num_rows = sum(len(shard) for shard in shards)
    if num_rows == 0:
        raise ValueError(f"The store {store.folder} holds no embeddings yet.")
    query = query / np.linalg.norm(query)
    if num_rows >= FAISS_FROM_ROWS and importlib.util.find_spec("faiss") is not None:
        return _find_by_index(store, shards, query, top_k)
    hits: list[Hit] = []
    for shard in shards:
        scores = _cosines(shard, query)
        best = np.argsort(-scores, kind="stable")[:top_k]
        hits = sorted([*hits, *(Hit(float(scores[row]), shard, int(row)) for row in best)], key=_by_score)[:top_k]
    return hits


def _by_score(hit: Hit) -> float:
    return -hit.score


def _cosines(shard: Shard, query: np.ndarray, rows: list[int] | None = None) -> np.ndarray:
    embeddings = shard.read_embeddings()
    if embeddings.ndim != 2 or embeddings.shape[1] != len(query) or len(embeddings) != len(shard):
        raise ValueError(
            f"{shard.embeddings_file} holds {embeddings.shape}, not the ({len(shard)}, {len(query)}) of its table."
        )
    return _normalise(embeddings if rows is None else embeddings[rows]) @ query


def _normalise(embeddings: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)


def _find_by_index(store: EmbeddingStore, shards: list[Shard], query: np.ndarray, top_k: int) -> list[Hit]:
    index = _open_index(store.folder, shards)
    candidates = index.search(query.astype(np.float32), k=CANDIDATES_PER_HIT * top_k).indices
    first_rows = np.cumsum([0, *(len(shard) for shard in shards)])
    hits = []
    rows_of_shards: dict[int, list[int]] = {}
    for candidate in sorted(int(index) for index in candidates if index >= 0):
        place = int(np.searchsorted(first_rows, candidate, side="right")) - 1
        rows_of_shards.setdefault(place, []).append(candidate - int(first_rows[place]))
    for place, rows in rows_of_shards.items():
        scores = _cosines(shards[place], query, rows)
        hits += [Hit(float(score), shards[place], row) for score, row in zip(scores, rows, strict=True)]
    return sorted(hits, key=_by_score)[:top_k]


def _open_index(folder: Path, shards: list[Shard]):
    """Returns the index over all shards; it is kept in the store, and made anew when shards have come."""
    import faiss
    from datasets.search import FaissIndex

    fingerprint = hashlib.sha256("\n".join(f"{shard.table_file.name} {len(shard)}" for shard in shards).encode())
    file = folder / f"index-{fingerprint.hexdigest()[:16]}.faiss"
    if file.is_file():
        return FaissIndex.load(file)
    print(f"building {file.name}, once for these embeddings …", flush=True)
    index = FaissIndex(string_factory="HNSW32", metric_type=faiss.METRIC_INNER_PRODUCT)
    for shard in shards:
        index.add_vectors(_normalise(shard.read_embeddings()))
    with whole_file(file) as temporary:
        index.save(temporary)
    for old in folder.glob("index-*.faiss"):
        if old != file:
            old.unlink()
    return index
