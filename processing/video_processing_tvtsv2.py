"""TVTSv2VideoProcessor: files, arrays and images to pixel values, by the two transforms of the release.

Axis legend: B videos, T frames, H height, W width; results are channels-first, `(B, T, 3, H, W)`.
"""

import difflib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import logging
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import is_decoder, list_metadata, list_videos
from .frame_pixels_tvtsv2 import finish, process_video, reading_options
from .frame_settings_tvtsv2 import (
    SETTING_NAMES,
    FrameSettings,
    TVTSv2VideoProcessorKwargs,
    check_names,
    random_interval_indices,
    resolve_settings,
)
from .reader_container_tvtsv2 import VideoReadingError
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import default_num_threads, read_video, read_windows

logger = logging.get_logger(__name__)

# Keys of a saved configuration that describe its writer.
WRITTEN_BY_LIBRARY = {"video_processor_type", "processor_class", "auto_map"}

IMPORTING_PROCESS = os.getpid()


class TVTSv2VideoProcessor(BaseVideoProcessor):
    """Turn videos (files, arrays, images) into `pixel_values_videos` of shape (B, T, 3, H, W).

    A video is one of:
      - the path (str or Path) of a local file, its bytes, a file object, or `{"path", "bytes"}`;
      - an array or tensor (T, H, W, C) or (T, C, H, W), uint8 or floats in [0, 1], of 1, 3 or 4 colors, a gray one
        (T, H, W) where neither T nor W is 1, 3 or 4 (else it is an image), or `{"array", "video_metadata"}`;
      - a `torchcodec.decoders.VideoDecoder`;
      - an image (PIL image, array of 2 or 3 axes, an image file's path, bytes or file object), or a list of images: its
        frames.

    A list of videos, nested or not, or a 5-D array, is a batch. Each item is examined by itself. One frame in memory,
    however it is passed, is an image: it stays one frame and is not padded.

    The evaluation preset equals PIL's nearest filter exactly. The feature-extraction preset is within 1 of 255 steps of
    PIL's bilinear filter, whose fixed-point weights torch's resize rounds differently.
    """

    valid_kwargs = TVTSv2VideoProcessorKwargs
    preset = "evaluation"
    num_frames = 12
    fps = None
    crop_size = {"height": 224, "width": 224}
    # None: the preset's value, so that a saved processor can be loaded with another preset.
    size = None
    resample = None
    do_center_crop = None
    do_pad = None
    default_to_square = False
    do_convert_rgb = True
    do_sample_frames = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    strict = True
    on_error = "raise"
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def __init__(self, **kwargs):
        check_names(kwargs.keys() - WRITTEN_BY_LIBRARY)
        super().__init__(**kwargs)
        self._settings({})

    @classmethod
    def from_dict(cls, video_processor_dict: dict[str, Any], **kwargs):
        """Return a processor of a saved configuration, with a warning for keys that this version does not have.

        Other parts of a model are loaded with the same `kwargs`: of unknown names, only near ones are errors.
        """
        check_names(name for name in kwargs if difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.85))
        known = SETTING_NAMES | WRITTEN_BY_LIBRARY
        unknown = sorted(video_processor_dict.keys() - known)
        if unknown:
            logger.warning(
                f"The saved configuration of the {cls.__name__} has keys that this version does not have, probably "
                f"written by a later one; they are ignored: {unknown}."
            )
        return super().from_dict({k: v for k, v in video_processor_dict.items() if k in known}, **kwargs)

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike):
        """Return the processor of a saved configuration file, see `from_dict`."""
        with open(json_file, encoding="utf-8") as file:
            return cls.from_dict(json.load(file))

    def preprocess(self, videos: Any, **kwargs) -> BatchFeature:
        """Return pixel values of videos.

        Args:
            videos: One video or a batch of them, see the class.
            kwargs: Any of `TVTSv2VideoProcessorKwargs`, for this call only.

        Returns:
            `pixel_values_videos`: (B, T, 3, H, W) float32, or a list of (T, 3, H, W) if `return_tensors` is None.

        Raises:
            VideoReadingError: A file cannot be read.
            TypeError, ValueError: An unknown argument, or an input that is no video.
        """
        check_names(kwargs.keys())
        settings = self._settings(kwargs)
        videos = list_videos(videos)
        processed, errors = self._process_all(videos, list_metadata(videos, kwargs.get("video_metadata")), settings)
        pixel_values = [pixels for pixels, _ in processed]
        data = {"pixel_values_videos": pixel_values}
        if settings.return_tensors is not None:
            shapes = {tuple(pixels.shape) for pixels in pixel_values}
            if len(shapes) > 1:
                raise ValueError(
                    f"Videos of different shapes {sorted(shapes)} do not stack; use do_pad=True for an equal number of "
                    "frames, keep images and videos apart, or use return_tensors=None."
                )
            data["pixel_values_videos"] = torch.stack(pixel_values)
        features = BatchFeature(data, tensor_type=settings.return_tensors)
        if settings.return_metadata:
            features["video_metadata"] = [metadata for _, metadata in processed]
        if errors is not None:
            features["video_errors"] = errors
        return features

    def read_frames(
        self, video: Any, windows: Sequence[tuple[float, float]] | None = None, *, on_file_clock: bool = False
    ) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
        """Return uint8 frames of a video file, or of windows of it: a quarter of the bytes of pixel values.

        `normalize_frames` makes of them the pixel values that the processor itself returns.

        Args:
            video: Path, bytes or file object.
            windows: (start, end) in seconds from the first frame, [start, end), each as if it were a video, read in one
                pass. Default: the whole video.
            on_file_clock: Count the seconds as `VideoFileMetadata.frame_span` does.

        Returns:
            For the video, or for each window, frames (T, H, W, 3) uint8, resized and cropped but not padded, and
            metadata.

        Raises:
            VideoReadingError: The file cannot be read.
            VideoWindowError: A window is empty or lies outside the video.
        """
        settings = self._settings({})
        options = reading_options(settings, settings.sample_indices)
        if windows is None:
            read = [read_video(video, **options)]
        else:
            read = read_windows(video, windows, on_file_clock=on_file_clock, **options)
        return [(torch.from_numpy(frames), metadata) for frames, metadata in read]

    def normalize_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Return pixel values of frames, computed on the device of the frames.

        Args:
            frames: (..., T, H, W, 3), 0 to 255, uint8 as `read_frames` returns them.

        Returns:
            (..., T, 3, H, W) float32, rescaled, normalized and padded with frames of zeros by the processor's settings.
        """
        return finish(frames, self._settings({"device": frames.device}))

    def sample_frames(
        self, metadata: VideoMetadata, num_frames: int | None = None, fps: float | None = None, **kwargs
    ) -> np.ndarray:
        """Return the indices of the frames sampled from a video, int64, ascending.

        Args:
            metadata: Of the video; `fps` needs its `fps`.
            num_frames: Number of frames. Default: the processor's.
            fps: Frames per second, in place of `num_frames`.
            kwargs: Any of `TVTSv2VideoProcessorKwargs`.
        """
        check_names(kwargs.keys())
        settings = self._settings({**kwargs, "num_frames": num_frames, "fps": fps})
        return settings.sample_indices(metadata)

    def sample_training_frames(
        self,
        video: Any,
        start_seconds: float = 0.0,
        end_seconds: float = float("inf"),
        *,
        generator: np.random.Generator,
        on_file_clock: bool = False,
    ) -> torch.Tensor:
        """Return the frames of a randomly sampled, randomly cropped clip of a span of a video file, for training.

        One random frame from each of `num_frames` equal intervals of the span, one random crop for all of them, no
        flip. Only these frames are kept while reading, each cropped at once.

        Args:
            video: Path, bytes or file object.
            start_seconds, end_seconds: The span [start, end), counted from the first frame shown.
            generator: The only source of randomness: `numpy.random.default_rng((seed, epoch, index))` makes the clip
                a function of these three.
            on_file_clock: Count the span as `VideoFileMetadata.frame_span` does; for spans that come from transcripts.

        Returns:
            `(num_frames, crop_height, crop_width, 3)` uint8, for `normalize_frames`.

        Raises:
            VideoReadingError: The file cannot be read.
            VideoWindowError: No frame lies in the span.
        """
        settings = self._settings({})

        def choose(metadata: VideoFileMetadata) -> np.ndarray:
            first, end = metadata.frame_span(start_seconds, end_seconds, on_file_clock=on_file_clock)
            return random_interval_indices(first, end, settings.num_frames, generator)

        frames, _ = read_video(video, num_threads=1, **reading_options(settings, choose, generator))
        return torch.from_numpy(frames)

    def _settings(self, call: dict) -> FrameSettings:
        limit_threads_after_fork()
        return resolve_settings(call, self)

    def _process_all(
        self, videos: list, video_metadata: list[VideoMetadata | None], settings: FrameSettings
    ) -> tuple[list, list | None]:
        """Return pixel values and metadata of the videos in their order, and the errors where they are collected."""
        num_threads = default_num_threads()
        num_workers = min(settings.num_workers or num_threads, len(videos))
        if any(map(is_decoder, videos)):
            num_workers = 1  # one decoder may be listed twice, and none may run in two threads
        num_threads = max(1, num_threads // num_workers)

        def process(video: Any, metadata: VideoMetadata | None) -> tuple | VideoReadingError:
            try:
                return process_video(video, metadata, settings, num_threads)
            except VideoReadingError as error:
                if settings.on_error == "raise":
                    raise
                return error

        if num_workers == 1:
            results = list(map(process, videos, video_metadata))
        else:
            with ThreadPoolExecutor(num_workers) as pool:
                results = list(pool.map(process, videos, video_metadata))
        if settings.on_error == "raise":
            return results, None
        errors = [result if isinstance(result, VideoReadingError) else None for result in results]
        failed = [error for error in errors if error is not None]
        if len(failed) == len(results):
            raise failed[0]
        return [result for result in results if not isinstance(result, VideoReadingError)], errors


def limit_threads_after_fork() -> None:
    """Let torch use one thread in a forked process, which would wait forever for the threads of its parent."""
    if os.getpid() != IMPORTING_PROCESS and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
