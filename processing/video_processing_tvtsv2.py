"""TVTSv2VideoProcessor: files, arrays and images to normalised frames, by the two transforms of the release.

Axis legend: B videos, T frames, H height, W width; results are channels-first, `(B, T, 3, H, W)`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import as_frames, list_videos
from .frame_files_tvtsv2 import read_file_frames, read_training_frames, sample_indices
from .frame_geometry_tvtsv2 import geometry_for
from .frame_settings_tvtsv2 import PRESETS, TVTSv2VideosKwargs, check_names
from .reader_container_tvtsv2 import VideoReadingError
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import default_num_threads


class TVTSv2VideoProcessor(BaseVideoProcessor):
    """Turns videos (files, arrays, images) into `pixel_values_videos` of shape (B, T, 3, H, W).

    A video is a path (str or Path) of a local file, its bytes or file object, an array or tensor (T, H, W, 3) or
    (T, 3, H, W) of uint8 or floats in [0, 1], or a list of frames. A single image (PIL, or a 3-D array) is a
    video of one frame and is never padded. A list of videos, or a 5-D array, is a batch. Each item is examined for
    itself.

    Pixels: the evaluation preset equals PIL's nearest filter exactly. The feature-extraction preset is within 1 of 255
    steps of PIL's bilinear filter, whose fixed-point weights torch's resize rounds differently.
    """

    valid_kwargs = TVTSv2VideosKwargs
    preset = "evaluation"
    num_frames = 12
    crop_size = {"height": 224, "width": 224}
    # None: what the preset says, so that a saved processor can be loaded with another preset.
    size = None
    resample = None
    do_center_crop = None
    do_pad = None
    default_to_square = False
    do_sample_frames = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    strict = True
    on_error = "raise"
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def __init__(self, **kwargs):
        # A saved configuration also carries who wrote it.
        written_by_library = {"video_processor_type", "processor_class", "auto_map"}
        check_names(kwargs.keys() - written_by_library)
        super().__init__(**kwargs)
        self._settings({})

    def preprocess(self, videos: Any, **kwargs) -> BatchFeature:
        """Frames ready for the model.

        Args:
            videos: One video or a batch of them, see the class.
            kwargs: Any of `TVTSv2VideosKwargs`, for this call alone.

        Returns:
            `pixel_values_videos`: (B, T, 3, H, W) float32, or a list of (T, 3, H, W) where `return_tensors` is None.

        Raises:
            VideoReadingError: A file cannot be read.
            TypeError, ValueError: An unknown argument, or an input that is no video.
        """
        check_names(kwargs.keys())
        settings = self._settings(kwargs)
        processed, errors = self._process_all(list_videos(videos), settings)
        return self._make_features(processed, errors, settings)

    def process_windows(self, video: Any, windows: Sequence[tuple[float, float]], **kwargs) -> BatchFeature:
        """Windows of one long video file, each as if it were a video of its own, read in one pass.

        Args:
            video: Path, bytes or file object.
            windows: (start, end) in seconds from the first frame, [start, end).
            kwargs: Any of `TVTSv2VideosKwargs`, for this call alone.

        Returns:
            `pixel_values_videos`: (number of windows, T, 3, H, W) float32.

        Raises:
            VideoReadingError: The file cannot be read.
            VideoWindowError: A window is empty or lies outside the video.
        """
        check_names(kwargs.keys())
        settings = self._settings(kwargs)
        processed = [
            (_finish(frames, settings), metadata) for frames, metadata in read_file_frames(video, windows, settings)
        ]
        return self._make_features(processed, None, settings)

    def read_frames(
        self, video: Any, windows: Sequence[tuple[float, float]] | None = None
    ) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
        """A video file, or windows of it, before normalization: a quarter of the bytes to hand on.

        `normalize_frames` makes of them what the processor itself, or `process_windows`, returns.

        Args:
            video, windows: As for `process_windows`; without windows, the whole video.

        Returns:
            For the video, or for each window, frames (T, H, W, 3) uint8, resized and cropped but not padded, and
            metadata.

        Raises:
            VideoReadingError, VideoWindowError: As for `process_windows`.
        """
        return read_file_frames(video, windows, self._settings({}))

    def normalize_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames ready for the model, computed where the frames are.

        Args:
            frames: (..., T, H, W, 3), 0 to 255, uint8 as `read_frames` returns them.

        Returns:
            (..., T, 3, H, W) float32 on the same device, rescaled, normalised, and padded with frames of zeros, each as
            far as the processor's settings say.
        """
        return _finish(frames, self._settings({}) | {"device": frames.device})

    def _make_features(self, processed: list, errors: list | None, settings: dict) -> BatchFeature:
        pixel_values = [pixels for pixels, _ in processed]
        data = {"pixel_values_videos": pixel_values}
        if settings["return_tensors"] is not None:
            shapes = {tuple(pixels.shape) for pixels in pixel_values}
            if len(shapes) > 1:
                raise ValueError(
                    f"Videos of different shapes {sorted(shapes)} do not stack; use do_pad=True for an equal number of "
                    "frames, keep images and videos apart, or use return_tensors=None."
                )
            data["pixel_values_videos"] = torch.stack(pixel_values)
        features = BatchFeature(data, tensor_type=settings["return_tensors"])
        if settings["return_metadata"]:
            features["video_metadata"] = [metadata for _, metadata in processed]
        if errors is not None:
            features["video_errors"] = errors
        return features

    def sample_frames(self, metadata: VideoMetadata, preset: str | None = None, num_frames: int | None = None):
        """Indices of the frames a preset takes of a video, int64, ascending."""
        settings = self._settings({"preset": preset, "num_frames": num_frames})
        return settings["sample_indices"](metadata.total_num_frames, settings["num_frames"])

    def sample_training_clip(
        self,
        video: Any,
        start_seconds: float = 0.0,
        end_seconds: float = float("inf"),
        *,
        generator: np.random.Generator,
    ) -> torch.Tensor:
        """A randomly sampled, randomly cropped clip of a span of a video file, for training.

        One frame at random from each of `num_frames` equal intervals of the span, one random crop for all of them, no
        flip. Only these frames are kept while reading, each cropped at once.

        Args:
            video: Path, bytes or file object.
            start_seconds, end_seconds: The span [start, end), counted from the first frame shown.
            generator: The only source of randomness: `numpy.random.default_rng((seed, epoch, index))` makes the clip
                a function of these three.

        Returns:
            `(num_frames, 3, crop_height, crop_width)` float32, normalised.

        Raises:
            VideoReadingError: The file cannot be read.
            VideoWindowError: No frame lies in the span.
        """
        return self.normalize_frames(
            self.sample_training_frames(video, start_seconds, end_seconds, generator=generator)
        )

    def sample_training_frames(
        self,
        video: Any,
        start_seconds: float = 0.0,
        end_seconds: float = float("inf"),
        *,
        generator: np.random.Generator,
    ) -> torch.Tensor:
        """What `sample_training_clip` makes pixels of: a quarter of the bytes to hand from a loading worker.

        Returns:
            `(num_frames, crop_height, crop_width, 3)` uint8, for `normalize_frames`.
        """
        return read_training_frames(video, (start_seconds, end_seconds), self._settings({}), generator)

    def _process_all(self, videos: list, settings: dict) -> tuple[list, list | None]:
        """Pixels and metadata of the videos in their order, and the errors where they are collected."""
        num_threads = default_num_threads()
        num_workers = min(settings["num_workers"] or num_threads, len(videos))
        settings = settings | {"num_threads": max(1, num_threads // num_workers)}

        def process(video: Any) -> tuple | VideoReadingError:
            try:
                return self._process_video(video, settings)
            except VideoReadingError as error:
                if settings["on_error"] == "raise":
                    raise
                return error

        if num_workers == 1:
            results = [process(video) for video in videos]
        else:
            with ThreadPoolExecutor(num_workers) as pool:
                results = list(pool.map(process, videos))
        if settings["on_error"] == "raise":
            return results, None
        errors = [result if isinstance(result, VideoReadingError) else None for result in results]
        if all(errors):
            raise errors[0]
        return [result for result in results if not isinstance(result, VideoReadingError)], errors

    def _process_video(self, video: Any, settings: dict) -> tuple[torch.Tensor, VideoMetadata]:
        if _is_file(video):
            ((frames, metadata),) = read_file_frames(video, None, settings, settings["num_threads"])
            return _finish(frames, settings), metadata
        array, is_image = as_frames(video, settings["input_data_format"])
        height, width = array.shape[1:3]
        metadata = VideoMetadata(total_num_frames=len(array), height=height, width=width, video_backend="array")
        metadata.frames_indices = [0] if is_image else [int(index) for index in sample_indices(metadata, settings)]
        frames = geometry_for(height, width, settings)(array[metadata.frames_indices])
        return _finish(frames, settings, is_image), metadata

    def _settings(self, overrides: dict) -> dict:
        """All settings of one call: its own, else the processor's, else the preset's."""
        settings = {}
        for name in TVTSv2VideosKwargs.__annotations__:
            value = overrides.get(name)
            settings[name] = getattr(self, name, None) if value is None else value
        if settings["preset"] not in PRESETS:
            raise ValueError(f"`preset` must be one of {sorted(PRESETS)}, got {settings['preset']!r}.")
        for name, value in PRESETS[settings["preset"]].items():
            if settings.get(name) is None:
                settings[name] = value
        if not isinstance(settings["num_frames"], int) or settings["num_frames"] < 1:
            raise ValueError(f"`num_frames` must be a whole number of at least 1, got {settings['num_frames']!r}.")
        if settings["on_error"] not in ("raise", "collect"):
            raise ValueError(f"`on_error` must be 'raise' or 'collect', got {settings['on_error']!r}.")
        settings = self._standardize_kwargs(default_to_square=self.default_to_square, **settings)
        if not (settings["crop_size"].height and settings["crop_size"].width):
            raise ValueError(f"`crop_size` needs a positive height and width, got {settings['crop_size']}.")
        return settings


def _is_file(video: Any) -> bool:
    return isinstance(video, str | bytes | os.PathLike) or hasattr(video, "read")


def _finish(frames: torch.Tensor, settings: dict, is_image: bool = False) -> torch.Tensor:
    """Frames (..., T, H, W, 3) normalised, and padded with zeros to the number of frames."""
    pixels = _normalize(frames, settings)
    num_missing = settings["num_frames"] - pixels.shape[-4]
    if settings["do_pad"] and not is_image and num_missing > 0:
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, num_missing))
    return pixels


def _normalize(frames: torch.Tensor, settings: dict) -> torch.Tensor:
    """Frames (..., T, H, W, 3) as the model's float32 (..., T, 3, H, W)."""
    channels_first = frames.to(settings["device"]).movedim(-1, -3)
    # The one copy, also of float32: all that follows is in place.
    pixels = channels_first.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if settings["do_rescale"]:
        pixels.mul_(settings["rescale_factor"])
    if settings["do_normalize"]:
        mean, std = (
            torch.tensor(settings[name], dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for name in ("image_mean", "image_std")
        )
        pixels.sub_(mean).div_(std)
    return pixels
