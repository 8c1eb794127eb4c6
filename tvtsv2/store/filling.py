"""Videos into a store: which are left to embed, and embedding them with all processes that share the store."""

import time
from dataclasses import dataclass

from accelerate import PartialState
from tqdm import tqdm

from processing.video_files import printable_name
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.embedding_store import EmbeddingStore, StoreWriter
from tvtsv2.store.work_queue import WorkQueue


@dataclass
class Counts:
    """Videos of a call of `fill_store`: in the store before, changed since, embedded by this process, failed."""

    num_done: int = 0
    num_changed: int = 0
    num_new: int = 0
    num_failed: int = 0


def fill_store(
    store: EmbeddingStore, embedder: VideoEmbedder, entries: list[VideoEntry], *, retry_failed: bool
) -> Counts:
    """Embed the videos that are not in the store, or have changed since; call it in every process.

    Args:
        store: What is written to.
        embedder: What embeds.
        entries: All videos that belong into the store, with different names.
        retry_failed: Try videos in the list of failures again, also those that have not changed.
    """
    state = PartialState()
    with WorkQueue(store.folder) as queue:
        todo, changed, counts = _remaining(store, entries, retry_failed)
        state.wait_for_everyone()  # the first to write must not make others count less
        with StoreWriter(store, queue, replaced=changed | store.failures().keys()) as writer:
            _embed(embedder, writer, todo, counts, show_progress=state.is_main_process)
            started_writing = time.perf_counter()
        embedder.seconds["store"] += time.perf_counter() - started_writing
        # Launchers end all processes when one exits with another code than 0.
        state.wait_for_everyone()
    return counts


def _remaining(
    store: EmbeddingStore, entries: list[VideoEntry], retry_failed: bool
) -> tuple[list[VideoEntry], set[str], Counts]:
    """Return the videos to embed, names of those that have changed, and how many are done or had failed."""
    done, failures = store.embedded_files(), {} if retry_failed else store.failures()
    failed = {name: (failure["file_bytes"], failure["modified_ns"]) for name, failure in failures.items()}
    todo, changed, counts = [], set(), Counts()
    for entry in entries:
        stamp = entry.stamp()
        if entry.name in done:
            if stamp is None or stamp == done[entry.name]:
                counts.num_done += 1
                continue
            changed.add(entry.name)
        elif failed.get(entry.name) == (stamp or (None, None)):
            counts.num_failed += 1
            continue
        todo.append(entry)
    counts.num_changed = len(changed)
    return todo, changed, counts


def _embed(
    embedder: VideoEmbedder, writer: StoreWriter, todo: list[VideoEntry], counts: Counts, *, show_progress: bool
) -> None:
    """Embed what this process gets of `todo`, and count it."""
    readable = []
    for entry in todo:
        if printable_name(entry.name) == entry.name:
            readable.append(entry)
        elif show_progress:  # one process lists it
            writer.add_failure(entry, "its name is not valid UTF-8; rename it")
            counts.num_failed += 1
    store = writer.store

    def find_done() -> set[str]:
        todo, _, _ = _remaining(store, readable, retry_failed=False)  # a changed video is not done with its old rows
        return {entry.name for entry in readable} - {entry.name for entry in todo}

    share = writer.queue.take(readable, find_done)
    hidden = not (show_progress and readable)
    for result in tqdm(embedder.embed(share), desc="embedding", total=len(readable), unit="video", disable=hidden):
        if result.error is not None:
            writer.add_failure(result.entry, result.error)
            counts.num_failed += 1
        else:
            writer.add_video([segment.row for segment in result.segments], result.embeddings())
            counts.num_new += 1
