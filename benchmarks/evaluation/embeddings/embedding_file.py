"""Embeddings made elsewhere (ImageBind, InternVideo, …), as one file that enters the benchmarks like a model.

A safetensors file with the tensors `video_embeddings` (V, D) and `text_embeddings` (M, D), and in its metadata, as
JSON, `videos` (V names as annotated), `texts` (M texts, word for word) and `description` (anything worth knowing, such
as model, revision, transform and number of frames). `python -m benchmarks.run … --write_inputs needed.json` writes
which videos and texts a protocol needs.
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from processing.video_files import content_hash


class EmbeddingFile:
    """An opened file of embeddings.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not such a file, or its names and rows do not fit each other.
    """

    temperature = None

    def __init__(self, path: str | Path):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            with safe_open(path, framework="np") as file:
                metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                self._videos = self._rows(file.get_tensor("video_embeddings"), metadata["videos"], "video")
                self._texts = self._rows(file.get_tensor("text_embeddings"), metadata["texts"], "text")
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is no file of embeddings, see benchmarks/evaluation/embeddings/embedding_file.py ({error})."
            ) from error
        self.description = {
            "name": path.name,
            "family": "embedding file",
            "weight_hash": content_hash(path),
            "made_elsewhere": metadata.get("description"),
        }

    @staticmethod
    def _rows(embeddings: np.ndarray, names: list[str], kind: str) -> dict[str, np.ndarray]:
        if embeddings.ndim != 2 or len(embeddings) != len(names):
            raise ValueError(f"There are {len(names)} {kind} names for embeddings of shape {embeddings.shape}.")
        rows = dict(zip(names, embeddings.astype(np.float32, copy=False), strict=True))
        if len(rows) != len(names):
            raise ValueError(f"{len(names) - len(rows)} {kind} names stand there more than once.")
        return rows

    def find_videos(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """The embeddings (D,) of those videos that the file has."""
        return {name: self._videos[name] for name in names if name in self._videos}

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        """(M, D) float32.

        Raises:
            ValueError: a text is not in the file.
        """
        absent = [text for text in texts if text not in self._texts]
        if absent:
            raise ValueError(
                f"{self.description['name']} lacks {len(absent)} of {len(texts)} texts, such as {absent[0]!r}; "
                "--write_inputs writes all that are needed."
            )
        return np.stack([self._texts[text] for text in texts])


def write_embedding_file(
    path: str | Path,
    videos: dict[str, np.ndarray],
    texts: dict[str, np.ndarray],
    description: dict | None = None,
) -> None:
    """Writes embeddings (D,) by name of video and by text as a file that `EmbeddingFile` opens."""
    tensors = {
        "video_embeddings": np.stack(list(videos.values())).astype(np.float32),
        "text_embeddings": np.stack(list(texts.values())).astype(np.float32),
    }
    metadata = {"videos": list(videos), "texts": list(texts), "description": description}
    save_file(tensors, path, metadata={name: json.dumps(value) for name, value in metadata.items()})
