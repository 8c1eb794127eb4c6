"""Clips and their transcripts of any source, for pre-training and for its evaluation.

Axes: T frames, H height, W width, K clips (transcripts) of a video.
"""

from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from processing import TVTSv2VideoProcessor
from training.sources.clip_sampling import choose_span, read_clip
from training.sources.source_video import VideoSource


class ClipKey(NamedTuple):
    """Names one draw: clips of the `index`-th video, in its `epoch`-th round."""

    epoch: int
    index: int


class ClipDataset(Dataset):
    """K clips of each video of a source with the words spoken in each, or the whole video with its caption.

    An item is a function of (seed, epoch, index) alone, independent of worker processes and of where a run was resumed.

    Args:
        videos: the source, see `formats.open_source`.
        video_processor: makes the frames; its `num_frames` is T.
        num_clips: K.
        min_words: a clip with fewer words makes the whole span be drawn again.
        seed: of all draws.
        deterministic: take fixed places, middle frames and the middle of the picture instead of random ones, for
            evaluation.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self,
        videos: VideoSource,
        video_processor: TVTSv2VideoProcessor,
        *,
        num_clips: int = 4,
        min_words: int = 3,
        seed: int = 0,
        deterministic: bool = False,
    ):
        if num_clips < 1 or min_words < 1:
            raise ValueError(f"num_clips and min_words must be at least 1, got {num_clips} and {min_words}")
        self.videos, self.video_processor = videos, video_processor
        self.num_clips, self.min_words = num_clips, min_words
        self.seed, self.deterministic = seed, deterministic

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: ClipKey | int) -> dict:
        """Return an item; an index alone means epoch 0.

        Returns:
            `frames` uint8 (T, H, W, 3), `transcripts`, K strings in order of time or one caption, and `video_id`.

        Raises:
            VideoReadingError: the video is missing, cannot be read, or ends before its clips.
            TranscriptError: its words are missing or broken, or no span with enough words was found.
        """
        epoch, index = key if isinstance(key, tuple) else (0, key)
        generator = None if self.deterministic else np.random.default_rng([self.seed, epoch, index])
        video = self.videos[index]
        if video.caption is not None:
            window, transcripts = (0.0, float("inf")), [video.caption]
        else:
            span, transcripts = choose_span(
                video.duration, video.words, self.num_clips, self.min_words, video.place, generator, video.shots
            )
            window = (span.start_seconds, span.end_seconds)
        frames = read_clip(
            self.video_processor, video.file, window, video.place, generator, on_file_clock=video.on_file_clock
        )
        return {"frames": frames, "transcripts": transcripts, "video_id": video.video_id}
