"""Clips from shards made by `training.data_building.pack_shards`, with random access through their index.

Shards come with an index, so a sample is two reads at known places and this source is map-style like all others. That
makes order a matter of numbers: mixing sources, splitting by process and worker, and resuming are done by the samplers,
exactly, without reading what is skipped. `streamed_clips.py` reads the same shards front to back.
"""

import aiohttp
import numpy as np
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor, VideoReadingError
from training.sources.clip_sampling import ClipSampler
from training.sources.shard_files import parse_content, read_index, read_range


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
            data = read_range(self._url(index), start, start + size)
        except (OSError, aiohttp.ClientError) as error:
            raise VideoReadingError(f"{name}: {error}") from error
        if len(data) > size:
            raise ValueError(
                f"{name}: the server sent {len(data)} bytes where {size} were asked for; it has to know HTTP ranges"
            )
        if len(data) < size:
            raise VideoReadingError(f"{name}: the shard ends after {len(data)} of {size} bytes")
        return data
