"""Clips from tar shards that `training.pack_shards` made, on a local disk or behind any URL that fsspec knows.

Shards come with an index, so a sample is one read at a known place and the source is map-style like all others. That
makes order a matter of numbers: splitting by process and worker and resuming are done by the samplers of torch and
accelerate, exactly, without reading what is skipped. (Streams with a shuffle buffer lose the buffer on a resume.)
`ShardSampler` keeps reads of one time close together, as a shuffle buffer does.
"""

import json
from collections.abc import Iterator

import fsspec
import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import Dataset, Sampler

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.clip_sampling import ClipSampler, TranscriptError
from training.transcripts import TimedWord


class ShardClips(Dataset):
    """K clips a video with the words spoken in each; items as in `clip_sources.py`.

    Args:
        shards: folder of the shards; a path or a URL (https://…, s3://…, hf://…) whose protocol fsspec has.
        split: "train" or "heldout".
        video_processor, num_clips, min_words, seed, deterministic: as in `YTTemporalClips`.

    Raises:
        FileNotFoundError: there is no index of this split.
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
        index_url = f"{self.shards}/{split}.parquet"
        try:
            with fsspec.open(index_url, "rb") as file:
                table = pq.read_table(file)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"there is no index {index_url}; was it packed by training.pack_shards?") from error
        self.places = {name: table[name].to_numpy() for name in table.column_names}
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
        try:
            content = json.loads(content)
            words = [TimedWord(*word) for word in zip(content["words"], content["times"], strict=True)]
            video_id, duration = str(content["video"]), float(content["duration"])
        except (ValueError, KeyError, TypeError) as error:
            raise TranscriptError(f"{name}: its words are broken: {error!r}") from error
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, index])
        item = self.sampler.sample(
            video, duration=duration, words=words, name=f"{name} ({video_id})", generator=generator
        )
        return {**item, "video_id": video_id}

    def _url(self, index: int) -> str:
        return f"{self.shards}/{self.split}-{self.places['shard'][index]:05d}.tar"

    def _read(self, index: int, kind: str, name: str) -> bytes:
        start, size = int(self.places[f"{kind}_offset"][index]), int(self.places[f"{kind}_size"][index])
        try:
            file_system, path = fsspec.core.url_to_fs(self._url(index))
            data = file_system.cat_file(path, start=start, end=start + size)
        except OSError as error:
            raise VideoReadingError(f"{name}: {error}") from error
        if len(data) != size:
            raise VideoReadingError(f"{name}: the shard ends after {len(data)} of {size} bytes")
        return data


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
