"""The rows of a store that are nearest to a query, by cosine.

Exact up to `INDEX_FROM_ROWS` rows. From there on an index (inverted lists with exact cosines) is used. It is built
once and kept in the table; its recall against the exact search is measured and printed. P projection.
"""

from dataclasses import fields
from typing import Any

import numpy as np
from lancedb.index import IvfFlat

from tvtsv2.errors import ArgumentError
from tvtsv2.store.embedding_store import EmbeddingStore
from tvtsv2.store.rows import Row

INDEX_FROM_ROWS = 500_000
NUM_PROBES = 64
NUM_RECALL_QUERIES = 50
COLUMNS = [column.name for column in fields(Row) if column.name != "modified_ns"]


def find_nearest(store: EmbeddingStore, query: np.ndarray, top_k: int, where: str | None = None) -> list[dict]:
    """Return up to `top_k` rows with their "score", best first.

    Args:
        query: (P,), of any length.
        where: condition on the columns, in SQL.

    Raises:
        ValueError: the store is empty, its embeddings are of another width, or the condition cannot be read.
    """
    num_rows = store.table.count_rows()
    if num_rows == 0:
        raise ValueError(f"The store {store.folder} holds no embeddings yet.")
    dimension = store.provenance["embedding"]["dimension"]
    if query.shape != (dimension,):
        raise ValueError(f"The query has the shape {query.shape}, the store {store.folder} needs ({dimension},).")
    if num_rows >= INDEX_FROM_ROWS and not store.table.list_indices():
        _build_index(store)
    return _search(store, query, top_k, where, exact=num_rows < INDEX_FROM_ROWS)


def check_condition(store: EmbeddingStore, where: str) -> None:
    """Raise an `ArgumentError` for a condition that cannot be read, or names columns that the store has not."""
    try:
        store.table.search().where(where).select(["path"]).limit(1).to_list()
    except Exception as error:  # the library raises types of its own
        reason = str(error).splitlines()[0]
        raise ArgumentError(f"--where {where!r} is no condition on {', '.join(COLUMNS)}: {reason}") from error


def _search(store: EmbeddingStore, query: np.ndarray, top_k: int, where: str | None, *, exact: bool) -> list[dict]:
    search: Any = store.table.search(query.astype(np.float32), vector_column_name="embedding")
    search = search.distance_type("cosine")
    if where is not None:
        search = search.where(where, prefilter=True)
    search = search.bypass_vector_index() if exact else search.nprobes(NUM_PROBES)
    try:
        rows = search.select([*COLUMNS, "_distance"]).limit(top_k).to_list()
    except Exception as error:  # the library raises types of its own, for a condition as for a damaged file
        raise ValueError(f"The store {store.folder} cannot be searched: {error}") from error
    hits = [{"score": 1 - row.pop("_distance")} | row for row in rows]
    return sorted(hits, key=lambda hit: (-hit["score"], hit["path"], hit["start_seconds"]))


def _build_index(store: EmbeddingStore) -> None:
    print(f"building an index over {store.table.count_rows():,} rows, once for this store …", flush=True)
    store.table.create_index("embedding", config=IvfFlat(distance_type="cosine"))
    print(f"recall@10 of the index against exact search: {measure_recall(store):.3f}", flush=True)


def measure_recall(store: EmbeddingStore, top_k: int = 10) -> float:
    """Return the share of the exact search's hits that the index finds, over rows of the store as queries."""
    generator = np.random.default_rng(0)
    rows = generator.choice(store.table.count_rows(), NUM_RECALL_QUERIES, replace=False)
    found = total = 0
    for row in store.table.take_offsets(sorted(rows.tolist())).select(["embedding"]).to_list():
        noise = generator.normal(size=len(row["embedding"])) / len(row["embedding"]) ** 0.5
        query = np.array(row["embedding"]) + np.linalg.norm(row["embedding"]) * noise
        exact, by_index = (
            {(hit["path"], hit["start_seconds"]) for hit in _search(store, query, top_k, None, exact=is_exact)}
            for is_exact in (True, False)
        )
        found, total = found + len(exact & by_index), total + len(exact)
    return found / total
