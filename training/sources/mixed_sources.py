"""Several data sources as one stream of samples, each a function of (seed, source, epoch, index) alone.

An optimizer step sees one source only, and sources take turns (in the release: YT-Temporal, WebVid, YT-Temporal, …), so
a step is either K transcripts a video, with sorting, or one caption. Order and content depend neither on the number of
worker processes nor, for the same number of samples a step, on the number of processes that train.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from processing import VideoReadingError
from training.masking import count_masked_patches, draw_tube_mask
from training.sources.clip_dataset import ClipKey
from training.sources.clip_sampling import TranscriptError
from training.sources.unusable_videos import BrokenVideos, TooManyBrokenVideosError

MAX_REPLACEMENTS = 20  # in a row; more than that is not bad luck


class SampleKey(NamedTuple):
    """Name of one draw: the `index`-th item of source `source`, in the `epoch`-th round of that source."""

    source: int
    epoch: int
    index: int


@dataclass
class MixedSources(Dataset):
    """Samples ready for the collator, by `SampleKey`.

    sources: as `ClipDataset`: items by `ClipKey`, with `frames`, `transcripts` and `video_id`.
    seed: of masks and of the order in which transcripts are handed over.
    broken_videos_file: file that gets a JSON line for each video of a source's round (epoch) that could not be used.
    num_patches: N, patches of a frame.
    mask_ratio: of tube masks, 0 for none.
    """

    sources: Sequence[Dataset]
    seed: int
    broken_videos_file: Path
    num_patches: int = 1
    mask_ratio: float = 0.0

    def __post_init__(self):
        empty = [number for number, source in enumerate(self.sources) if len(source) == 0]
        if not self.sources or empty:
            raise ValueError(f"Training needs at least one source, none of them empty; empty are numbers {empty}.")
        self._broken_videos = BrokenVideos(self.broken_videos_file)
        count_masked_patches(self.num_patches, self.mask_ratio)  # a ratio that cannot be is an error now, not later

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def num_broken(self) -> int:
        """Videos that the file names, over all processes and restarts; each counts once a round of its source."""
        return len(self._broken_videos)

    def __getitem__(self, key: SampleKey) -> dict:
        """Return the item of `key`, or of its replacement where that video is broken.

        On top of the source's: `bool_masked_pos` bool (N,), `sorting_labels` int64 (K,), transcripts in random order,
        and `num_broken`, how many videos were passed over to get here.

        Raises:
            TooManyBrokenVideosError: all videos of the source, or more than `MAX_REPLACEMENTS` in a row, are broken.
        """
        source = self.sources[key.source]
        generator = np.random.default_rng([self.seed, *key])
        index, tried = key.index, set()
        while True:
            try:
                item = source[ClipKey(key.epoch, index)]
                break
            except (VideoReadingError, TranscriptError) as error:
                self._broken_videos.add({**key._asdict(), "index": index, "error": str(error)})
                tried.add(index)
                if len(tried) > MAX_REPLACEMENTS or len(tried) == len(source):
                    raise TooManyBrokenVideosError(
                        f"{len(tried)} of {len(source)} videos of source number {key.source} were tried in a row and "
                        "cannot be used, so something else must be wrong. They are named in "
                        f"{self.broken_videos_file}; the last one: {error}"
                    ) from error
                while index in tried:
                    index = int(generator.integers(len(source)))
        order = generator.permutation(len(item["transcripts"]))
        return {
            **item,
            # The sorter cannot see the order it is given, but what is shuffled cannot leak.
            "transcripts": [item["transcripts"][place] for place in order],
            "sorting_labels": torch.from_numpy(order),
            "bool_masked_pos": torch.from_numpy(draw_tube_mask(self.num_patches, self.mask_ratio, generator)),
            "num_broken": len(tried),
        }


class TurnSampler(Sampler[SampleKey]):
    """Keys in training order: sources take turns by weight, each step's samples come from one of them.

    An epoch ends when every source has been seen once at least: smaller ones start over meanwhile. What is left of a
    source's last round, less than a step, is not used in that round.

    Args:
        source_sizes: items of each source.
        weights: steps of each source in a turn; 1 and 1 alternate.
        samples_per_step: over all processes and accumulated batches.
        seed: of the order.

    Raises:
        ValueError: no samples or weights, or a source smaller than a step.
    """

    def __init__(self, source_sizes: Sequence[int], weights: Sequence[int], samples_per_step: int, seed: int):
        if len(source_sizes) != len(weights) or not all(isinstance(weight, int) and weight > 0 for weight in weights):
            raise ValueError(f"Each source needs a weight, a whole number of at least 1; got {list(weights)}.")
        if min(source_sizes) < samples_per_step:
            raise ValueError(
                f"A step takes {samples_per_step} samples of one source, but the sources have {list(source_sizes)}. "
                "Use smaller batches, fewer processes, or more data."
            )
        self.source_sizes, self.weights = list(source_sizes), list(weights)
        self.samples_per_step, self.seed, self.epoch = samples_per_step, seed, 0

    @property
    def num_turns(self) -> int:
        """Turns in an epoch."""
        rounds = [size // self.samples_per_step for size in self.source_sizes]
        return max(-(-steps // weight) for steps, weight in zip(rounds, self.weights, strict=True))

    def __len__(self) -> int:
        return self.num_turns * sum(self.weights) * self.samples_per_step

    def set_epoch(self, epoch: int) -> None:
        """Another order from here on; the Trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleKey]:
        streams = [self._steps(source) for source in range(len(self.source_sizes))]
        for _ in range(self.num_turns):
            for stream, weight in zip(streams, self.weights, strict=True):
                for _ in range(weight):
                    yield from next(stream)

    def _steps(self, source: int) -> Iterator[list[SampleKey]]:
        """Yield one step's keys of a source after the other, without end."""
        size, step = self.source_sizes[source], self.samples_per_step
        rounds_per_epoch = -(-self.num_turns * self.weights[source] // (size // step))
        round_number = self.epoch * rounds_per_epoch
        while True:
            order = np.random.default_rng([self.seed, source, round_number]).permutation(size)
            for first in range(0, size - step + 1, step):
                yield [SampleKey(source, round_number, int(index)) for index in order[first : first + step]]
            round_number += 1
