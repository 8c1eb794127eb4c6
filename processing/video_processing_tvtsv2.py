"""TVTSv2VideoProcessor: files, arrays and images to normalised frames, by the two transforms of the release.

Axis legend: B videos, T frames, H height, W width; results are channels-first, `(B, T, 3, H, W)`.
"""

import difflib
import os
from typing import Any, TypedDict

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import as_frames, list_videos
from .frame_geometry_tvtsv2 import FrameGeometry, center_crop_offset, shortest_edge_size
from .frame_sampling_tvtsv2 import interval_midpoint_indices, linspace_indices, random_interval_indices
from .video_reading_tvtsv2 import read_video

# The resize before the crop, relative to the crop. Source: released code.
RESIZE_TO_CROP_RATIO = 1.2

# What each preset says where neither the processor nor the call does.
PRESETS = {
    "evaluation": {
        "sample_indices": interval_midpoint_indices,
        "resample": PILImageResampling.NEAREST,
        "do_center_crop": True,
        "do_pad": True,
    },
    "feature_extraction": {
        "sample_indices": linspace_indices,
        "resample": PILImageResampling.BILINEAR,
        "do_center_crop": False,
        "do_pad": False,
    },
}


class TVTSv2VideosKwargs(TypedDict, total=False):
    """Settings of `TVTSv2VideoProcessor`, for its constructor and, for one call, `__call__`.

    Attributes:
        preset: "evaluation" (middle frames of equal intervals, nearest resize, centre crop, short videos padded with
            zeros after normalisation) or "feature_extraction" (evenly spread frames, squashed to a square).
        num_frames: Frames taken of a video.
        crop_size: Height and width of the result.
        size: Size before the crop; None: shortest edge `int(1.2 * crop_size)`, or `crop_size` where nothing is cropped.
        resample: PIL's number of the resizing filter; None: as the preset says.
        do_sample_frames: Take `num_frames` of a video; False takes all of its frames.
        do_resize, do_center_crop, do_rescale, do_normalize: Leave a step out with False.
        do_pad: Fill videos of fewer than `num_frames` frames up with zeros; None: as the preset says.
        rescale_factor: Multiplies levels 0 to 255.
        image_mean, image_std: Per colour, of rescaled values.
        device: Where normalisation runs and the result lies.
        input_data_format: "channels_first" or "channels_last", for arrays whose shape leaves it open.
        return_metadata: Add `video_metadata`, one per video.
        return_tensors: "pt" or "np" for one stacked tensor; None for a list, one per video.
    """

    preset: str | None
    num_frames: int | None
    crop_size: int | dict[str, int] | None
    size: int | dict[str, int] | None
    resample: int | None
    do_sample_frames: bool | None
    do_resize: bool | None
    do_center_crop: bool | None
    do_pad: bool | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: list[float] | None
    image_std: list[float] | None
    device: str | None
    input_data_format: str | None
    return_metadata: bool | None
    return_tensors: str | None


class TVTSv2VideoProcessor(BaseVideoProcessor):
    """Turns videos (files, arrays, images) into `pixel_values_videos` of shape (B, T, 3, H, W).

    A video is a path (str or Path) of a local file, its bytes or file object, an array or tensor (T, H, W, 3) or
    (T, 3, H, W) of uint8 levels or floats in [0, 1], or a list of frames. A single image (PIL, or a 3-D array) is a
    video of one frame and is never padded. A list of videos, or a 5-D array, is a batch. Each item is examined for
    itself.

    Pixels: the evaluation preset equals PIL's nearest filter exactly. The feature-extraction preset is within 1 of 255
    levels of PIL's bilinear filter, whose fixed-point weights torch's resize rounds differently.
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
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD

    def __init__(self, **kwargs):
        # A saved configuration also carries who wrote it.
        written_by_library = {"video_processor_type", "processor_class", "auto_map"}
        _check_names(kwargs.keys() - written_by_library)
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
        _check_names(kwargs.keys())
        settings = self._settings(kwargs)
        processed = [self._process_video(video, settings) for video in list_videos(videos)]
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
            ValueError: No frame lies in the span.
        """
        settings = self._settings({})
        geometry = None

        def sample_span(metadata):
            nonlocal geometry
            first, end = metadata.frame_span(start_seconds, end_seconds)
            geometry = _frame_geometry(metadata.height, metadata.width, settings, generator)
            return random_interval_indices(first, end, settings["num_frames"], generator)

        frames, _ = read_video(
            video, sample_span, frame_transform=lambda image: geometry(torch.from_numpy(image)).numpy()
        )
        return _normalise(torch.from_numpy(frames), settings)

    def _process_video(self, video: Any, settings: dict) -> tuple[torch.Tensor, VideoMetadata]:
        def sample(metadata):
            if not settings["do_sample_frames"]:
                return range(metadata.total_num_frames)
            return settings["sample_indices"](metadata.total_num_frames, settings["num_frames"])

        if _is_file(video):
            frames, metadata = _read_frames(video, sample, settings)
            is_image = False
        else:
            array, is_image = as_frames(video, settings["input_data_format"])
            height, width = array.shape[1:3]
            metadata = VideoMetadata(total_num_frames=len(array), height=height, width=width, video_backend="array")
            metadata.frames_indices = [0] if is_image else [int(index) for index in sample(metadata)]
            frames = _frame_geometry(height, width, settings)(array[metadata.frames_indices])
        pixels = _normalise(frames, settings)
        num_missing = settings["num_frames"] - len(pixels)
        if settings["do_pad"] and not is_image and num_missing > 0:
            pixels = torch.cat([pixels, pixels.new_zeros(num_missing, *pixels.shape[1:])])
        return pixels, metadata

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
        settings = self._standardize_kwargs(default_to_square=self.default_to_square, **settings)
        if not (settings["crop_size"].height and settings["crop_size"].width):
            raise ValueError(f"`crop_size` needs a positive height and width, got {settings['crop_size']}.")
        return settings


def _is_file(video: Any) -> bool:
    return isinstance(video, str | bytes | os.PathLike) or hasattr(video, "read")


def _read_frames(video: Any, sample, settings: dict) -> tuple[torch.Tensor, VideoMetadata]:
    geometry = None

    def sample_and_prepare(metadata):
        nonlocal geometry
        geometry = _frame_geometry(metadata.height, metadata.width, settings)
        return sample(metadata)

    frames, metadata = read_video(
        video, sample_and_prepare, frame_transform=lambda image: geometry(torch.from_numpy(image)).numpy()
    )
    return torch.from_numpy(frames), metadata


def _frame_geometry(
    height: int, width: int, settings: dict, generator: np.random.Generator | None = None
) -> FrameGeometry:
    """Resize and crop for frames of one size; the crop is centred, or drawn where a generator is given."""
    crop = settings["crop_size"]
    resized_height, resized_width = height, width
    if settings["do_resize"]:
        resized_height, resized_width = _resized_size(height, width, settings)
    box = (0, 0, resized_height, resized_width)
    if settings["do_center_crop"]:
        if crop.height > resized_height or crop.width > resized_width:
            raise ValueError(
                f"A crop of {crop.height}x{crop.width} (height x width) does not fit frames of "
                f"{resized_height}x{resized_width}; choose a larger `size` or a smaller `crop_size`."
            )
        if generator is None:
            top, left = center_crop_offset(resized_height, crop.height), center_crop_offset(resized_width, crop.width)
        else:
            top = int(generator.integers(resized_height - crop.height + 1))
            left = int(generator.integers(resized_width - crop.width + 1))
        box = (top, left, crop.height, crop.width)
    is_nearest = settings["resample"] == PILImageResampling.NEAREST
    return FrameGeometry(resized_height, resized_width, *box, resample=None if is_nearest else _resampler(settings))


def _resized_size(height: int, width: int, settings: dict) -> tuple[int, int]:
    size, crop = settings["size"], settings["crop_size"]
    if size is None and settings["do_center_crop"]:
        size = SizeDict(shortest_edge=int(RESIZE_TO_CROP_RATIO * max(crop.height, crop.width)))
    elif size is None:
        size = crop
    if size.shortest_edge:
        return shortest_edge_size(height, width, size.shortest_edge)
    if size.height and size.width:
        return size.height, size.width
    raise ValueError(f"`size` needs 'shortest_edge', or 'height' and 'width', got {size}.")


def _resampler(settings: dict):
    from torchvision.transforms.v2 import functional as tvF
    from transformers.image_utils import pil_torch_interpolation_mapping

    interpolation = pil_torch_interpolation_mapping[settings["resample"]]
    return lambda frames, size: tvF.resize(frames, list(size), interpolation=interpolation, antialias=True)


def _normalise(frames: torch.Tensor, settings: dict) -> torch.Tensor:
    """Levels (T, H, W, 3) as the model's float32 (T, 3, H, W)."""
    pixels = frames.to(settings["device"]).movedim(-1, -3).float().contiguous()
    if settings["do_rescale"]:
        pixels = pixels * settings["rescale_factor"]
    if settings["do_normalize"]:
        mean, std = (
            torch.tensor(settings[name], dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for name in ("image_mean", "image_std")
        )
        pixels = (pixels - mean) / std
    return pixels


def _check_names(names) -> None:
    for name in sorted(names):
        if name not in TVTSv2VideosKwargs.__annotations__:
            near = difflib.get_close_matches(name, TVTSv2VideosKwargs.__annotations__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {sorted(TVTSv2VideosKwargs.__annotations__)}."
            raise TypeError(f"TVTSv2VideoProcessor has no argument {name!r}; {hint}")
