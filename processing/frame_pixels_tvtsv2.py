"""Pixel values of one video: sampled, resized, cropped, normalized, padded.

Axis legend: T frames, H height, W width.
"""

from typing import Any

import torch
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import as_frames, is_decoder, is_file, is_image_file, list_metadata, split_metadata
from .frame_files_tvtsv2 import read_file_frames
from .frame_geometry_tvtsv2 import geometry_for
from .frame_settings_tvtsv2 import FrameSettings
from .reader_container_tvtsv2 import VideoReadingError


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
        return finish(_resize(frames, settings), settings), metadata
    if is_file(video) and not is_image_file(video):
        ((frames, metadata),) = read_file_frames(video, None, settings, num_threads)
        return finish(frames, settings), metadata
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
    return finish(_resize(frames, settings), settings, is_image), metadata


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


def _resize(frames: torch.Tensor, settings: FrameSettings) -> torch.Tensor:
    return geometry_for(*frames.shape[1:3], settings)(frames)


def finish(frames: torch.Tensor, settings: FrameSettings, is_image: bool = False) -> torch.Tensor:
    """Return frames (..., T, H, W, 3) normalized, and padded with zeros to the number of frames."""
    pixels = _normalize(frames, settings)
    num_missing = settings.num_frames - pixels.shape[-4]
    if settings.do_pad and settings.fps is None and not is_image and num_missing > 0:
        pixels = torch.nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, num_missing))
    return pixels


def _normalize(frames: torch.Tensor, settings: FrameSettings) -> torch.Tensor:
    """Return frames (..., T, H, W, 3) as the model's float32 (..., T, 3, H, W)."""
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
    return pixels
