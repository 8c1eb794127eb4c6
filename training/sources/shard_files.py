"""Shards written by `training.data_building.pack_shards`: the index, the bytes of a part, the words of a sample.

Shards lie in a folder, or behind any URL that fsspec knows.
"""

import json
import time

import aiohttp
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.sources.clip_sampling import TranscriptError
from training.transcripts.alignment import TimedWord

RETRY_SECONDS = (1, 5, 20)  # a busy server or a moment without network should not cost a video, or the run


def read_index(shards: str, split: str) -> tuple[dict[str, np.ndarray], str]:
    """Where each sample of a split lies (columns of numbers), and the suffix of the shards' names.

    Raises:
        FileNotFoundError: there is no index of this split.
        ValueError: it is no index.
    """
    url = f"{shards}/{split}.parquet"
    try:
        table = pq.read_table(pa.BufferReader(read_range(url, None, None)))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there is no index {url}; was it packed by training.data_building.pack_shards?"
        ) from error
    except pa.ArrowInvalid as error:
        raise ValueError(f"{url} is no index of shards: {error}") from error
    suffix = (table.schema.metadata or {}).get(b"shard_format", b"tar").decode()
    return {name: table[name].to_numpy() for name in table.column_names}, suffix


def read_range(url: str, start: int | None, end: int | None) -> bytes:
    """Bytes [start, end) of a file; what may pass (anything but a missing file) is tried again over a network."""
    file_system, path = fsspec.core.url_to_fs(url)
    for seconds in RETRY_SECONDS if file_system.async_impl else ():
        try:
            return file_system.cat_file(path, start=start, end=end)
        except FileNotFoundError:
            raise
        except (OSError, aiohttp.ClientError):
            time.sleep(seconds)
    return file_system.cat_file(path, start=start, end=end)


def parse_content(content: bytes | str, name: str) -> tuple[str, float, list[TimedWord]]:
    """Path, seconds and words of a sample's JSON.

    Raises:
        TranscriptError: it is broken; `name` is what the message calls the sample.
    """
    try:
        content = json.loads(content)
        words = [TimedWord(*word) for word in zip(content["words"], content["times"], strict=True)]
        return str(content["video"]), float(content["duration"]), words
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TranscriptError(f"{name}: its words are broken: {error!r}") from error
