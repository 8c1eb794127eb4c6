"""Clips from shards read front to back through `datasets`, tar or Parquet, on a disk or behind a URL.

For training loops of one's own that want a stream with a shuffle buffer: few long reads, as object stores like them,
and a buffer that has to be filled again on a resume. `shard_clips.py` reads the same shards in any order.
"""

import json
import logging
from collections.abc import Iterator
from itertools import islice

import datasets
import numpy as np
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.sources.clip_sampling import ClipSampler, TranscriptError
from training.sources.shard_files import parse_content, read_index

logger = logging.getLogger(__name__)


class StreamedClips(IterableDataset):
    """K clips a video with the words spoken in each; items as in `clip_sources.py`, and each once an epoch.

    An item is a function of (seed, epoch, video), whoever reads it. Processes share the stream by `rank` and
    `num_processes`, and the workers of a `DataLoader` share it further: by shards, so make at least as many shards as
    there are readers. A video that cannot be used is logged and passed over.

    Args:
        shards, split: as for `ShardClips`.
        video_processor, num_clips, min_words, seed, deterministic: as in `YTTemporalClips`.
        buffer_size: rows that the shuffle holds, each with its whole video; 1 keeps the order within a shard.
        rank, num_processes: which part of the stream is this process's.
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
        buffer_size: int = 64,
        rank: int = 0,
        num_processes: int = 1,
    ):
        if buffer_size < 1:
            raise ValueError(f"buffer_size must be at least 1, got {buffer_size}")
        self.shards, self.split = str(shards).rstrip("/"), split
        places, suffix = read_index(self.shards, split)
        files = [f"{self.shards}/{split}-{number:05d}.{suffix}" for number in range(int(places["shard"].max()) + 1)]
        builder = {"tar": "webdataset", "parquet": "parquet"}[suffix]
        stream = datasets.load_dataset(builder, data_files={split: files}, split=split, streaming=True)
        stream = split_dataset_by_node(stream.shuffle(seed, buffer_size=buffer_size), rank, num_processes)
        self.rows = stream
        self.sampler = ClipSampler(video_processor, num_clips, min_words)
        self.seed, self.epoch, self.deterministic = seed, 0, deterministic
        self.num_rows_read = self.num_rows_to_skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Another order and other draws from here on."""
        self.epoch = epoch
        self.rows.set_epoch(epoch)

    def state_dict(self) -> dict:
        """Where this reader is; each worker of a `DataLoader` has a place of its own."""
        return {"epoch": self.epoch, "num_rows_read": self.num_rows_read}

    def load_state_dict(self, state: dict) -> None:
        """The next iteration goes on there: rows before it are read again, in the same order, but not decoded."""
        self.set_epoch(state["epoch"])
        self.num_rows_to_skip = state["num_rows_read"]

    def __iter__(self) -> Iterator[dict]:
        self.num_rows_read, self.num_rows_to_skip = self.num_rows_to_skip, 0
        for row in islice(self.rows, self.num_rows_read, None):
            self.num_rows_read += 1
            try:
                yield self._sample(row)
            except (VideoReadingError, TranscriptError) as error:
                logger.warning("Passed over: %s", error)

    def _sample(self, row: dict) -> dict:
        name = f"{self.shards}, {self.split}, key {row['__key__']}"
        content = row["json"] if isinstance(row["json"], str) else json.dumps(row["json"])  # tar comes parsed
        video_id, duration, words = parse_content(content, name)
        generator = None if self.deterministic else np.random.default_rng([self.seed, self.epoch, int(row["__key__"])])
        item = self.sampler.sample(
            row["video"], duration=duration, words=words, name=f"{name} ({video_id})", generator=generator
        )
        return {**item, "video_id": video_id}
