"""Where a protocol gets its embeddings: a model over a folder of videos, or a file of embeddings made elsewhere.

Axes: n videos found, M texts, D width of embeddings.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.evaluation.embeddings.cache import embed_files
from benchmarks.evaluation.embeddings.embedders import Embedder
from benchmarks.evaluation.embeddings.embedding_file import EmbeddingFile
from benchmarks.evaluation.embeddings.video_folder import VideoFolder

BLOCK_SIZE = 8192  # rows that are normalised at a time


@dataclass
class VideoEmbeddings:
    """Embeddings of the videos of a split.

    Attributes:
        names: those that were found and could be read, in the order of the split.
        values: (n, D) float32, length 1.
        missing: names without a file.
        broken: why others could not be read, by name.
        paths: files by name; empty where there are none.
    """

    names: tuple[str, ...]
    values: np.ndarray
    missing: list[str]
    broken: dict[str, str]
    paths: dict[str, Path] = field(default_factory=dict)


class IncompleteVideosError(ValueError):
    """Videos of a split are missing or unreadable, and that was not allowed."""


@dataclass
class ModelSource:
    """A model that embeds the files of a folder, each once."""

    embedder: Embedder
    videos: VideoFolder
    cache: Path
    batch_size: int = 16
    num_workers: int = 2

    @property
    def description(self) -> dict:
        """What made the embeddings."""
        return self.embedder.description

    @property
    def temperature(self) -> float | None:
        """The model's own, for cosine similarities."""
        return self.embedder.temperature

    def embed_videos(self, names: tuple[str, ...], *, allow_missing: bool) -> VideoEmbeddings:
        """Embeddings of videos by name; call it in every process.

        Raises:
            IncompleteVideosError: some are missing or broken, and `allow_missing` is False, or all are.
        """
        paths, missing = self.videos.find_all(names)
        _check_complete(names, missing, {}, allow_missing)
        found, broken = embed_files(
            paths, self.embedder, self.cache, batch_size=self.batch_size, num_workers=self.num_workers
        )
        return _collect(names, found, missing, broken, paths, allow_missing)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """(M, D), length 1."""
        return normalise(self.embedder.embed_texts(texts), texts, "text")


@dataclass
class FileSource:
    """A file of embeddings made elsewhere, and the folder of videos for pictures in reports, if there is one."""

    file: EmbeddingFile
    videos: VideoFolder | None = None

    @property
    def description(self) -> dict:
        """What is known of how the embeddings were made."""
        return self.file.description

    temperature = None

    def embed_videos(self, names: tuple[str, ...], *, allow_missing: bool) -> VideoEmbeddings:
        """As `ModelSource.embed_videos`; a video is missing if the file does not have it."""
        found = self.file.find_videos(names)
        missing = [name for name in names if name not in found]
        paths = self.videos.find_all(tuple(found))[0] if self.videos else {}
        return _collect(names, found, missing, {}, paths, allow_missing)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """(M, D), length 1."""
        return normalise(self.file.embed_texts(texts), texts, "text")


Source = ModelSource | FileSource


def _collect(
    names: tuple[str, ...],
    found: dict[str, np.ndarray],
    missing: list[str],
    broken: dict[str, str],
    paths: dict[str, Path],
    allow_missing: bool,
) -> VideoEmbeddings:
    _check_complete(names, missing, broken, allow_missing)
    kept = tuple(name for name in names if name in found)
    values = normalise(np.stack([found[name] for name in kept]), list(kept), "video")
    return VideoEmbeddings(kept, values, missing, broken, paths)


def normalise(embeddings: np.ndarray, names: list[str], kind: str) -> np.ndarray:
    """The embeddings (N, D) themselves, float32, brought to length 1 in place, a block of rows at a time.

    Args:
        embeddings: Float32; a large set of them needs no second copy.
        names: Of the N rows, for messages.
        kind: What a row is, for messages.

    Raises:
        ValueError: a row is not finite, or zero.
    """
    for start in range(0, len(embeddings), BLOCK_SIZE):
        block = embeddings[start : start + BLOCK_SIZE]
        lengths = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
        wrong = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
        if len(wrong):
            raise ValueError(
                f"The embedding of {kind} {names[start + wrong[0]]!r} is zero or not finite; check the model's "
                "weights, and half precision against --dtype float32."
            )
        block /= lengths
    return embeddings


def _check_complete(names: tuple[str, ...], missing: list[str], broken: dict[str, str], allow_missing: bool) -> None:
    num_lost = len(missing) + len(broken)
    if not num_lost or (allow_missing and num_lost < len(names)):
        return
    examples = [f"{name!r} has no file" for name in missing[:3]]
    examples += [f"{name!r} cannot be read ({reason})" for name, reason in list(broken.items())[:3]]
    advice = "" if allow_missing else " --allow_missing goes on without them, and the record and the ledger say so."
    raise IncompleteVideosError(
        f"Of {len(names)} videos {len(missing)} are missing and {len(broken)} broken: {'; '.join(examples)}.{advice}"
    )
