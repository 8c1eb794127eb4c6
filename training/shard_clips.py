"""Clips from shards that `training.pack_shards` made, on a local disk or behind any URL that fsspec knows.

Shards come with an index, so a sample is one read at a known place and the source is map-style like all others. That
makes order a matter of numbers: splitting by process and worker and resuming are done by the samplers of torch and
accelerate, exactly, without reading what is skipped. (Streams with a shuffle buffer lose the buffer on a resume.)
`ShardSampler` keeps reads of one time close together, as a shuffle buffer does.
"""

import json
import time
from collections.abc import Iterator

import aiohttp
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch.utils.data import Dataset, Sampler

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.clip_sampling import ClipSampler, TranscriptError
from training.transcripts import TimedWord

RETRY_SECONDS = (1, 5, 20)  # a busy server or a moment without network should not cost a video, or the run


class ShardClips(Dataset):
    """K clips a video with the words spoken in each; items as in `clip_sources.py`.

    Args:
        shards: folder of the shards; a path or a URL (https://…, s3://…, hf://…) whose protocol fsspec has.
        split: "train" or "heldout".
        video_processor, num_clips, min_words, seed, deterministic: as in `YTTemporalClips`.

    Raises:
        FileNotFoundError: there is no index of this split.
        ValueError: it is no index, or (with the first item) the server sends whole files where a part was asked for.
    """

    def __init__(
        self,
        shards: str,
        split: str = "train",
        *,
        video_processor: TVTSv2VideoProcessor,
        num_clips: int = 4,
        min_words: int = 3,
        seed: int = 0,
        deterministic: bool = False,
    ):
        self.shards, self.split = str(shards).rstrip("/"), split
        self.places, self.suffix = read_index(self.shards, split)
        self.sampler = ClipSampler(video_processor, num_clips, min_words)
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic

    def __len__(self) -> int:
        return len(self.places["shard"])

    def set_epoch(self, epoch: int) -> None:
        """Other draws from here on; the Trainer calls it."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        """The item of sample `index`.

        Raises:
            VideoReadingError: the shard or the video in it cannot be read.
            TranscriptError: the words are broken, or no span with enough words was found.
        """
        name = f"{self._url(index)}, sample {index}"
        video, content = self._read(index, "video", name), self._read(index, "json", name)
        video_id, duration, words = parse_content(content, name)
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        item = self.sampler.sample(
            video, duration=duration, words=words, name=f"{name} ({video_id})", generator=generator
        )
        return {**item, "video_id": video_id}

    def _url(self, index: int) -> str:
        return f"{self.shards}/{self.split}-{self.places['shard'][index]:05d}.{self.suffix}"

    def _read(self, index: int, kind: str, name: str) -> bytes:
        start, size = int(self.places[f"{kind}_offset"][index]), int(self.places[f"{kind}_size"][index])
        try:
            data = _read_range(self._url(index), start, start + size)
        except (OSError, aiohttp.ClientError) as error:
            raise VideoReadingError(f"{name}: {error}") from error
        if len(data) > size:
            raise ValueError(
                f"{name}: the server sent {len(data)} bytes where {size} were asked for; it has to know HTTP ranges"
            )
        if len(data) < size:
            raise VideoReadingError(f"{name}: the shard ends after {len(data)} of {size} bytes")
        return data


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


def read_index(shards: str, split: str) -> tuple[dict[str, np.ndarray], str]:
    """Where each sample of a split lies (columns of numbers), and the suffix of the shards' names.

    Raises:
        FileNotFoundError: there is no index of this split.
        ValueError: it is no index.
    """
    url = f"{shards}/{split}.parquet"
    try:
        table = pq.read_table(pa.BufferReader(_read_range(url, None, None)))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no index {url}; was it packed by training.pack_shards?") from error
    except pa.ArrowInvalid as error:
        raise ValueError(f"{url} is no index of shards: {error}") from error
    suffix = (table.schema.metadata or {}).get(b"shard_format", b"tar").decode()
    return {name: table[name].to_numpy() for name in table.column_names}, suffix


def _read_range(url: str, start: int | None, end: int | None) -> bytes:
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


class ShardSampler(Sampler[int]):
    """All samples once an epoch, shuffled the way streams are: shards in random order, then within a sliding buffer.

    Args:
        source: what the indices are of.
        buffer_size: how many samples the shuffle looks ahead; 1 keeps the order within a shard.
        seed: with the epoch, the order's only origin.
    """

    def __init__(self, source: ShardClips, *, buffer_size: int = 1000, seed: int = 0):
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size}")
        self.shard_of_sample = source.places["shard"]
        self.buffer_size, self.seed, self.epoch = buffer_size, seed, 0

    def __len__(self) -> int:
        return len(self.shard_of_sample)

    def set_epoch(self, epoch: int) -> None:
        """Another order from here on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch])
        rank_of_shard = generator.permutation(int(self.shard_of_sample.max()) + 1)
        order = np.argsort(rank_of_shard[self.shard_of_sample], kind="stable")
        buffer: list[int] = []
        for index in order.tolist():
            if len(buffer) < self.buffer_size:
                buffer.append(index)
                continue
            place = int(generator.integers(self.buffer_size))
            yield buffer[place]
            buffer[place] = index
        yield from generator.permutation(buffer).tolist()
