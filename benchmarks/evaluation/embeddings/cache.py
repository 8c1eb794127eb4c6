"""Embeddings of video files, each made once per file, model and transform: below the folder of a cache, a store as
`tvtsv2 embed` writes it for each embedder; paths in it are absolute.
"""

import hashlib
import json
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from benchmarks.evaluation.embeddings.embedders import Embedder
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.embedding_store import EmbeddingStore
from tvtsv2.store.filling import fill_store

FORMAT_VERSION = 3  # raise it when the same files, model and transform begin to give other embeddings
WAIT_SECONDS = 2.0  # for videos that another run is embedding


def this_process(device: str | None = None) -> PartialState:
    """Return which of how many processes this is, all on `device`; None: an accelerator where there is one."""
    # Without `cpu`, processes on a machine without accelerator form no group.
    on_cpu = device == "cpu" or not torch.accelerator.is_available()
    return PartialState() if PartialState._shared_state else PartialState(cpu=on_cpu, timeout=timedelta(days=30))


def open_store(folder: str | Path, embedder: Embedder) -> EmbeddingStore:
    """Return the store of an embedder below a folder; made if need be. Call it in every process."""
    decisive = {name: value for name, value in embedder.description.items() if name not in ("name", "revision")}
    text = json.dumps([FORMAT_VERSION, decisive], sort_keys=True)
    model = decisive | {"name": embedder.description["name"]}
    provenance = {"model": model, "embedding": {"dimension": embedder.dimension}}
    with this_process().main_process_first():
        return EmbeddingStore.claim(Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:20], provenance)


def embed_files(
    files: dict[str, Path], embedder: Embedder, folder: str | Path, *, batch_size: int, num_workers: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return embeddings (D,) by name, and why others could not be read. Call it in every process.

    Args:
        files: Paths by name.
        folder: Of the stores of all embedders.
        batch_size: Videos that the model sees at a time.
        num_workers: Processes that read files.

    Raises:
        ValueError: an embedding is not finite.
    """
    store = open_store(folder, embedder)
    entry_of = {name: VideoEntry(str(path.resolve()), path) for name, path in files.items()}
    reading = VideoEmbedder(
        embedder.embed_videos,
        embedder.reader,
        device=embedder.device,
        batch_size=batch_size,
        num_readers=num_workers,
    )
    found: dict[str, np.ndarray] = {}
    reasons: dict[str, str] = {}
    left = list({entry.name: entry for entry in entry_of.values()}.values())
    while any(gather_object([len(left)])):
        fill_store(store, reading, left, retry_failed=True)
        found |= store.embeddings([entry.name for entry in left])
        reasons |= {path: failure["reason"] for path, failure in store.failures().items() if path not in found}
        left = [entry for entry in left if entry.name not in found.keys() | reasons.keys()]
        if left:  # another run is embedding them
            time.sleep(WAIT_SECONDS)
    embeddings = {name: found[entry.name] for name, entry in entry_of.items() if entry.name in found}
    broken = {
        name: reasons[entry.name].replace(str(entry.path), entry.path.name)
        for name, entry in entry_of.items()
        if entry.name not in found
    }
    return embeddings, broken
