"""Embeddings of video files, each made once per file, model and transform.

    <folder>/<fingerprint>/embedder.json         what made them
    <folder>/<fingerprint>/<any>.safetensors     shards: `embeddings` (n, D), metadata `keys`

A file is recognized by its path, size and time of modification, as in a store of `tvtsv2 embed`.

A shard is complete or absent, so a killed run loses at most the shard it was filling. Several processes (torchrun,
`accelerate launch`) share the work; each writes shards of its own.

Axes: n videos of a shard, D width of embeddings.
"""

import hashlib
import json
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from benchmarks.evaluation.embeddings.embedders import Embedder
from processing import VideoReadingError

FORMAT_VERSION = 2  # raise it when the same files, model and transform begin to give other embeddings
SHARD_SIZE = 256
SHARD_SECONDS = 30.0


def fingerprint(description: dict) -> str:
    """Return a name for what an embedder's description says, without its model's name."""
    decisive = {name: value for name, value in description.items() if name not in ("name", "revision")}
    text = json.dumps([FORMAT_VERSION, decisive], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


class EmbeddingCache:
    """The shards of one embedder in a folder.

    Args:
        folder: The folder of all embedders; made if need be.
        description: `Embedder.description`.
    """

    def __init__(self, folder: str | Path, description: dict):
        self.root = Path(folder)
        self.folder = self.root / fingerprint(description)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "embedder.json", json.dumps(description, indent=2).encode())
        self._places: dict[str, tuple[Path, int]] = {}
        self._read_shards: set[Path] = set()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def refresh(self) -> None:
        """Read which shards were added since."""
        for shard in sorted(self.folder.glob("*.safetensors")):
            if shard not in self._read_shards:
                with _open_shard(shard) as file:
                    keys = json.loads(file.metadata()["keys"])
                self._places.update({key: (shard, row) for row, key in enumerate(keys)})
                self._read_shards.add(shard)

    def add(self, keys: list[str], embeddings: np.ndarray) -> None:
        """Write a shard: embeddings (n, D) by key."""
        shard = self.folder / f"{uuid.uuid4().hex}.safetensors"
        temporary = shard.with_suffix(".part")
        save_file({"embeddings": embeddings}, temporary, metadata={"keys": json.dumps(keys)})
        temporary.replace(shard)
        self.refresh()

    def get(self, keys: list[str]) -> np.ndarray:
        """Return embeddings (len(keys), D), float32."""
        rows_of: dict[Path, list[tuple[int, int]]] = {}
        for place, key in enumerate(keys):
            shard, row = self._places[key]
            rows_of.setdefault(shard, []).append((place, row))
        result = None
        for shard, pairs in rows_of.items():
            with _open_shard(shard) as file:
                embeddings = file.get_tensor("embeddings")
            if result is None:
                result = np.empty((len(keys), embeddings.shape[1]), np.float32)
            places, rows = zip(*pairs, strict=True)
            result[list(places)] = embeddings[list(rows)]
        return result


def this_process(device: str | None = None) -> PartialState:
    """Return which of how many processes this is, all on `device`; None: an accelerator where there is one."""
    # Without `cpu`, processes on a machine without accelerator form no group.
    on_cpu = device == "cpu" or not torch.accelerator.is_available()
    return PartialState() if PartialState._shared_state else PartialState(cpu=on_cpu)


def embed_files(
    files: dict[str, Path], embedder: Embedder, folder: str | Path, *, batch_size: int, num_workers: int
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return embeddings (D,) by name, and why others could not be read. Call it in every process.

    Args:
        files: Paths by name.
        folder: The cache.
        batch_size: Videos that the model sees at a time.
        num_workers: Processes that read files beside this one; 0: this one reads.

    Raises:
        ValueError: an embedding is not finite.
    """
    state = this_process()
    key_of = {name: key for name, path in files.items() if (key := file_key(path)) is not None}
    cache = EmbeddingCache(folder, embedder.description)
    path_of = {key: files[name] for name, key in key_of.items()}
    wanted = sorted(key for key in path_of if key not in cache)
    state.wait_for_everyone()  # before new shards change what is wanted
    share = {key: path_of[key] for key in wanted[state.process_index :: state.num_processes]}
    reasons = _embed_missing(share, embedder, cache, batch_size, num_workers, state.is_main_process)
    reasons = dict(gather_object(list(reasons.items())))
    state.wait_for_everyone()
    cache.refresh()
    broken = {name: reasons[key] for name, key in key_of.items() if key in reasons}
    broken |= {name: "the file cannot be opened" for name in files if name not in key_of}
    good = [name for name in files if name not in broken]
    embeddings = cache.get([key_of[name] for name in good]) if good else []
    return dict(zip(good, embeddings, strict=True)), broken


def file_key(path: Path) -> str | None:
    """Return what identifies a file; None if it cannot be opened or is no regular file (reading a pipe never ends)."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns}" if stat.S_ISREG(status.st_mode) else None


def _embed_missing(
    files: dict[str, Path], embedder: Embedder, cache: EmbeddingCache, batch_size: int, num_workers: int, show: bool
) -> dict[str, str]:
    """Add the embeddings of files by key to the cache; return why others could not be read."""
    reasons: dict[str, str] = {}
    keys: list[str] = []
    parts: list[np.ndarray] = []
    started = time.monotonic()
    with tqdm(total=len(files), desc="embedding videos", unit="video", disable=not show or not files) as progress:
        for batch in _read_batches(files, embedder, batch_size, num_workers):
            reasons.update({key: pixels for key, pixels in batch if isinstance(pixels, str)})
            good = [(key, pixels) for key, pixels in batch if not isinstance(pixels, str)]
            if good:
                embeddings = embedder.embed_videos([pixels for _, pixels in good])
                _check_finite(embeddings, [files[key] for key, _ in good])
                keys += [key for key, _ in good]
                parts.append(embeddings)
            progress.update(len(batch))
            if len(keys) >= SHARD_SIZE or (keys and time.monotonic() - started > SHARD_SECONDS):
                cache.add(keys, np.concatenate(parts))
                keys, parts, started = [], [], time.monotonic()
    if keys:
        cache.add(keys, np.concatenate(parts))
    return reasons


class _Videos(torch.utils.data.Dataset):
    """Pixels, or the reason why there are none, by key."""

    def __init__(self, files: dict[str, Path], reader):
        self.files, self.reader = list(files.items()), reader

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor | str]:
        key, path = self.files[index]
        try:
            return key, self.reader(path)
        except (VideoReadingError, OSError) as error:
            return key, str(error).replace(str(path), path.name)


def _read_batches(files: dict[str, Path], embedder: Embedder, batch_size: int, num_workers: int) -> Iterator[list]:
    return iter(
        torch.utils.data.DataLoader(
            _Videos(files, embedder.reader),
            batch_size=batch_size,
            num_workers=min(num_workers, len(files)),
            collate_fn=list,
            prefetch_factor=2 if num_workers and files else None,
        )
    )


def _check_finite(embeddings: np.ndarray, paths: list[Path]) -> None:
    wrong = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"The embedding of {paths[wrong[0]].name} is not finite (NaN or infinite). Check the model's weights; "
            "in half precision, try --dtype float32."
        )


def _open_shard(shard: Path):
    try:
        return safe_open(shard, framework="np")
    except SafetensorError as error:
        raise ValueError(f"The shard {shard} is broken ({error}); remove it, its videos are embedded again.") from error


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
