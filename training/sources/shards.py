"""Shards made by `training.data_building.pack_shards`, on a disk or behind any URL that fsspec opens.

An index holds the place of every sample, so a sample is two reads at known places and shards are map-style as all other
sources. Mixing sources, splitting by process and worker, and resuming are thus left to samplers, exactly, and what is
skipped is never read.
"""

import json
import time
from collections.abc import Iterable

import aiohttp
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from processing import VideoReadingError
from training.sources.built_dataset import no_split_help
from training.sources.clip_sampling import TranscriptError
from training.sources.source_video import SourceVideo
from training.transcripts.words import TimedWord

RETRY_SECONDS = (1, 5, 20)  # a busy server or a moment without network should not cost a video, or the run


class Shards:
    """Narrated videos packed with their words into tar or Parquet shards.

    Args:
        shards: folder of the shards: a path or a URL (https://…, s3://…, hf://…).
        split: "train" or "heldout".

    Raises:
        FileNotFoundError: there is no index of this split.
        ValueError: it is no index, or (with the first video) the server sends whole files where a part was asked for.
    """

    is_captioned = False

    def __init__(self, shards: str, split: str = "train"):
        self.shards, self.split = str(shards).rstrip("/"), split
        url = f"{self.shards}/{split}.parquet"
        try:
            index = pq.read_table(pa.BufferReader(read_range(url, None, None)))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"there is no index {url}; was it packed by training.data_building.pack_shards? If the dataset had no "
                f"videos of the split {split!r}: {no_split_help(split)}"
            ) from error
        except pa.ArrowInvalid as error:
            raise ValueError(f"{url} is no index of shards: {error}") from error
        self.suffix = (index.schema.metadata or {}).get(b"shard_format", b"tar").decode()
        self.places = {name: index[name].to_numpy() for name in index.column_names}

    def __len__(self) -> int:
        return len(self.places["shard"])

    def names(self) -> Iterable[str]:
        """Return nothing: the index does not name videos."""
        return ()

    def __getitem__(self, index: int) -> SourceVideo:
        """Return sample `index`.

        Raises:
            VideoReadingError: the shard cannot be read.
            TranscriptError: the words are broken.
        """
        place = f"{self._url(index)}, sample {index}"
        video, text = self._read(index, "video", place), self._read(index, "json", place)
        try:
            content = json.loads(text)
            words = [TimedWord(*word) for word in zip(content["words"], content["times"], strict=True)]
            shots = [float(start) for start in content.get("shots", ())]
            name, duration = str(content["video"]), float(content["duration"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TranscriptError(f"{place}: its words are broken: {error!r}") from error
        return SourceVideo(video, name, f"{place} ({name})", words, duration, shots)

    def _url(self, index: int) -> str:
        return f"{self.shards}/{self.split}-{self.places['shard'][index]:05d}.{self.suffix}"

    def _read(self, index: int, kind: str, place: str) -> bytes:
        start, size = int(self.places[f"{kind}_offset"][index]), int(self.places[f"{kind}_size"][index])
        try:
            data = read_range(self._url(index), start, start + size)
        except (OSError, aiohttp.ClientError) as error:
            raise VideoReadingError(f"{place}: {error}") from error
        if len(data) > size:
            raise ValueError(
                f"{place}: the server sent {len(data)} bytes where {size} were asked for; it must support HTTP range "
                "requests"
            )
        if len(data) < size:
            raise VideoReadingError(f"{place}: the shard ends after {len(data)} of {size} bytes")
        return data


def read_range(url: str, start: int | None, end: int | None) -> bytes:
    """Return bytes [start, end) of a file; over a network, every error but a missing file is retried."""
    file_system, path = fsspec.core.url_to_fs(url)
    for seconds in RETRY_SECONDS if file_system.async_impl else ():
        try:
            return file_system.cat_file(path, start=start, end=end)
        except FileNotFoundError:
            raise
        except (OSError, aiohttp.ClientError):
            time.sleep(seconds)
    return file_system.cat_file(path, start=start, end=end)
