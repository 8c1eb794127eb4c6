"""Pixel values of a video: frames sampled, resized and cropped to the exact pixels of the release, normalized, padded.

Axis legend: ... any leading axes, T frames, H height, W width, C colors, kept last as in image files.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import as_frames, is_decoder, is_file, is_image_file, list_metadata, split_metadata
from .frame_settings_tvtsv2 import FrameSettings
from .reader_container_tvtsv2 import VideoReadingError
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import read_video

# The resize before the crop, relative to the crop. Source: released code.
RESIZE_TO_CROP_RATIO = 1.2


def pil_nearest_indices(source_size: int, target_size: int) -> torch.Tensor:
    """Return the source row (or column) of each target row, `(target_size,)` int64, as PIL's nearest filter picks it.

    PIL steps through the source by repeated addition in double precision. Rounding decides ties, so the closed form
    `(i + 0.5) * source / target`, like torch's "nearest-exact", differs from it at some sizes.

    Source: observed of Pillow 11 to 13 for sizes 1 to 1,400; torch's "nearest" differs at nearly all of them.
    """
    scale = source_size / target_size
    steps = np.full(target_size, scale)
    steps[0] = 0.5 * scale
    return torch.from_numpy(np.minimum(np.cumsum(steps).astype(np.int64), source_size - 1))


def transform_for(
    height: int, width: int, settings: FrameSettings, generator: np.random.Generator | None = None
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the resize and crop of frames (..., height, width, C) of any dtype; the crop is centered, or drawn."""
    crop, (resized_height, resized_width) = settings.crop_size, resized_size(height, width, settings)
    top, left, bottom, right = 0, 0, resized_height, resized_width
    if settings.do_center_crop:
        if crop.height > resized_height or crop.width > resized_width:
            raise ValueError(
                f"A crop of {crop.height}x{crop.width} (height x width) does not fit frames of "
                f"{resized_height}x{resized_width}; choose a larger `size` or a smaller `crop_size`."
            )
        if generator is None:
            # Halves round to even. Source: released code.
            top, left = round((resized_height - crop.height) / 2), round((resized_width - crop.width) / 2)
        else:
            top = int(generator.integers(resized_height - crop.height + 1))
            left = int(generator.integers(resized_width - crop.width + 1))
        bottom, right = top + crop.height, left + crop.width
    if settings.resample == PILImageResampling.NEAREST:
        # Only what survives the crop is gathered.
        rows = pil_nearest_indices(height, resized_height)[top:bottom]
        columns = pil_nearest_indices(width, resized_width)[left:right]
        return lambda frames: frames.index_select(-3, rows.to(frames.device)).index_select(
            -2, columns.to(frames.device)
        )

    def resample(frames: torch.Tensor) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as tvF
        from transformers.image_utils import pil_torch_interpolation_mapping

        frames = frames.movedim(-1, -3)
        if (height, width) != (resized_height, resized_width):
            interpolation = pil_torch_interpolation_mapping[settings.resample]
            frames = tvF.resize(frames, [resized_height, resized_width], interpolation=interpolation, antialias=True)
        return frames[..., top:bottom, left:right].movedim(-3, -1)

    return resample


def resized_size(height: int, width: int, settings: FrameSettings) -> tuple[int, int]:
    """Return height and width after the resize of the settings."""
    if not settings.do_resize:
        return height, width
    size, crop = settings.size, settings.crop_size
    if size is None and settings.do_center_crop:
        size = SizeDict(shortest_edge=int(RESIZE_TO_CROP_RATIO * max(crop.height, crop.width)))
    elif size is None:
        size = crop
    if size.shortest_edge:
        # The longer side is truncated. Source: released code (torchvision's rule for an integer size).
        return size.shortest_edge * height // min(height, width), size.shortest_edge * width // min(height, width)
    if size.height and size.width:
        return size.height, size.width
    raise ValueError(f"`size` needs 'shortest_edge', or 'height' and 'width', got {size}.")


def reading_options(
    settings: FrameSettings, choose: Callable[..., np.ndarray], generator: np.random.Generator | None = None
) -> dict:
    """Return arguments of `read_video` that choose frames, and resize and crop each as soon as it is decoded."""
    transforms: list[Callable[[torch.Tensor], torch.Tensor]] = []

    def sample(metadata: VideoFileMetadata) -> np.ndarray:
        indices = choose(metadata)
        transforms.append(transform_for(metadata.height, metadata.width, settings, generator))
        return indices

    return {
        "sample_indices_fn": sample,
        "frame_transform": lambda image: transforms[-1](torch.from_numpy(image)).numpy(),
        "strict": settings.strict,
        "limits": settings.limits,
    }


def process_video(
    video: Any, metadata: VideoMetadata | None, settings: FrameSettings, num_threads: int
) -> tuple[torch.Tensor, VideoMetadata]:
    """Return pixel values (T, 3, H, W) and metadata of one video in any of its forms.

    Args:
        video: See `TVTSv2VideoProcessor`.
        metadata: What the caller gave about a video in memory.
        settings: Of this call.
        num_threads: Threads to decode a file with.
    """
    video, own_metadata = split_metadata(video)
    if is_decoder(video):
        frames, metadata = _read_decoder(video, settings)
        return finish(transform_for(metadata.height, metadata.width, settings)(frames), settings), metadata
    if is_file(video) and not is_image_file(video):
        options = reading_options(settings, settings.sample_indices)
        frames, metadata = read_video(video, num_threads=num_threads, **options)
        return finish(torch.from_numpy(frames), settings), metadata
    (given,) = list_metadata([video], own_metadata) if own_metadata is not None else (metadata,)
    # Image files are opened once they are sampled.
    are_files = isinstance(video, list | tuple) and all(map(is_image_file, video))
    frames = video if are_files else as_frames(video, settings)
    metadata = _array_metadata(len(frames), given, settings)
    is_image = len(frames) == 1
    taken = [0] if is_image else [int(index) for index in settings.sample_indices(metadata)]
    metadata.frames_indices = [int(metadata.frames_indices[index]) for index in taken]
    frames = as_frames([frames[index] for index in taken], settings) if are_files else frames[taken]
    metadata.height, metadata.width = frames.shape[1:3]
    return finish(transform_for(metadata.height, metadata.width, settings)(frames), settings, is_image), metadata


def _array_metadata(num_frames: int, given: VideoMetadata | None, settings: FrameSettings) -> VideoMetadata:
    """Return metadata of frames in memory, `frames_indices` for all of them, with what the caller gave about them."""
    metadata = VideoMetadata(num_frames, video_backend="array", frames_indices=range(num_frames))
    if given is not None:
        metadata.fps, metadata.duration = given.fps, given.duration
        if given.total_num_frames not in (None, num_frames) and settings.fps is not None:
            raise ValueError(
                f"The `video_metadata` of {given.total_num_frames} frames belongs to an array of {num_frames} frames; "
                "`fps` needs all frames of the video, so use `num_frames` or do_sample_frames=False."
            )
        if given.frames_indices is not None and len(given.frames_indices) == num_frames:
            metadata.frames_indices = given.frames_indices
    return metadata


def _read_decoder(decoder: Any, settings: FrameSettings) -> tuple[torch.Tensor, VideoMetadata]:
    try:
        stream = decoder.metadata
        metadata = VideoMetadata(
            len(decoder), fps=stream.average_fps, duration=stream.duration_seconds, video_backend="torchcodec"
        )
        metadata.frames_indices = [int(index) for index in settings.sample_indices(metadata)]
        frames = as_frames(decoder.get_frames_at(metadata.frames_indices).data.cpu(), settings)
    except RuntimeError as cause:
        raise VideoReadingError(f"Cannot read a video through its torchcodec decoder: {cause}") from cause
    metadata.height, metadata.width = frames.shape[1:3]
    return frames, metadata


def finish(frames: torch.Tensor, settings: FrameSettings, is_image: bool = False) -> torch.Tensor:
    """Return frames (..., T, H, W, 3) as the model's float32 (..., T, 3, H, W), padded with frames of zeros."""
    channels_first = frames.to(settings.device).movedim(-1, -3)
    # The one copy, also of float32: all that follows is in place.
    pixels = channels_first.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if settings.do_rescale:
        pixels.mul_(settings.rescale_factor)
    if settings.do_normalize:
        mean, std = (
            torch.tensor(value, dtype=torch.float32, device=pixels.device).view(-1, 1, 1)
            for value in (settings.image_mean, settings.image_std)
        )
        pixels.sub_(mean).div_(std)
    num_missing = settings.num_frames - pixels.shape[-4]
    if settings.do_pad and settings.fps is None and not is_image and num_missing > 0:
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, num_missing))
    return pixels
