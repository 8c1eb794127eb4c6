"""Pixel values of a video: frames sampled, resized and cropped to the exact pixels of the release, normalized, padded.

Axis legend: ... any leading axes, T frames, H height, W width, C colors, kept last as in image files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.image_utils import PILImageResampling, SizeDict
from transformers.video_utils import VideoMetadata

from .frame_arrays_tvtsv2 import as_frames, is_decoder, is_file, is_image_file, list_metadata, split_metadata
from .frame_settings_tvtsv2 import FrameSettings, random_interval_indices
from .reader_container_tvtsv2 import VideoReadingError
from .reader_metadata_tvtsv2 import VideoFileMetadata
from .reader_tvtsv2 import read_video, read_windows

# The resize before the crop, relative to the crop. Source: released code.
RESIZE_TO_CROP_RATIO = 1.2


@dataclass(frozen=True)
class FrameGeometry:
    """Resize, then crop, for frames of one size; calling it transforms frames.

    Attributes:
        resized_height, resized_width: Size after resizing, in pixels.
        crop_top, crop_left, crop_height, crop_width: The box kept of it; the whole frame when nothing is cropped.
        resample: Resizes `(N, C, H, W)` to a given height and width; None is nearest neighbour by PIL's rule.
    """

    resized_height: int
    resized_width: int
    crop_top: int
    crop_left: int
    crop_height: int
    crop_width: int
    resample: Callable[[torch.Tensor, tuple[int, int]], torch.Tensor] | None = None

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return frames `(..., H, W, C)` of any dtype as `(..., crop_height, crop_width, C)` of the same dtype."""
        height, width = frames.shape[-3:-1]
        top, left = self.crop_top, self.crop_left
        bottom, right = top + self.crop_height, left + self.crop_width
        if self.resample is None:
            # Only what survives the crop is gathered.
            rows = pil_nearest_indices(height, self.resized_height)[top:bottom].to(frames.device)
            columns = pil_nearest_indices(width, self.resized_width)[left:right].to(frames.device)
            return frames.index_select(-3, rows).index_select(-2, columns)
        channels_first = frames.movedim(-1, -3).reshape(-1, frames.shape[-1], height, width)
        if (height, width) != (self.resized_height, self.resized_width):
            channels_first = self.resample(channels_first, (self.resized_height, self.resized_width))
        cropped = channels_first[..., top:bottom, left:right].movedim(-3, -1)
        return cropped.reshape(*frames.shape[:-3], self.crop_height, self.crop_width, frames.shape[-1])


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


def shortest_edge_size(height: int, width: int, shortest_edge: int) -> tuple[int, int]:
    """Return height and width after scaling the shorter side to `shortest_edge`; the longer one is truncated.

    Source: released code (torchvision's rule for an integer size).
    """
    if height <= width:
        return shortest_edge, shortest_edge * width // height
    return shortest_edge * height // width, shortest_edge


def center_crop_offset(size: int, crop: int) -> int:
    """Return the start of a centered crop along one side. Source: released code; halves round to even."""
    return round((size - crop) / 2)


def geometry_for(
    height: int, width: int, settings: FrameSettings, generator: np.random.Generator | None = None
) -> FrameGeometry:
    """Return the resize and crop for frames of one size; the crop is centered, or drawn by a generator."""
    crop = settings.crop_size
    resized_height, resized_width = resized_size(height, width, settings)
    box = (0, 0, resized_height, resized_width)
    if settings.do_center_crop:
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
    is_nearest = settings.resample == PILImageResampling.NEAREST
    return FrameGeometry(resized_height, resized_width, *box, resample=None if is_nearest else _resampler(settings))


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
        return shortest_edge_size(height, width, size.shortest_edge)
    if size.height and size.width:
        return size.height, size.width
    raise ValueError(f"`size` needs 'shortest_edge', or 'height' and 'width', got {size}.")


def _resampler(settings: FrameSettings):
    from torchvision.transforms.v2 import functional as tvF
    from transformers.image_utils import pil_torch_interpolation_mapping

    interpolation = pil_torch_interpolation_mapping[settings.resample]
    return lambda frames, size: tvF.resize(frames, list(size), interpolation=interpolation, antialias=True)


def read_file_frames(
    video: Any,
    windows: Sequence[tuple[float, float]] | None,
    settings: FrameSettings,
    num_threads: int | None = None,
    on_file_clock: bool = False,
) -> list[tuple[torch.Tensor, VideoFileMetadata]]:
    """Return frames (T, H, W, 3) uint8 and metadata: of each window of a file, or of the whole file."""
    reader = _FileFrames(settings)
    options = reader.options() | {"num_threads": num_threads}
    if windows is None:
        read = [read_video(video, reader.sample, **options)]
    else:
        read = read_windows(video, windows, reader.sample, on_file_clock=on_file_clock, **options)
    return [(torch.from_numpy(frames), metadata) for frames, metadata in read]


def read_training_frames(
    video: Any, span: tuple[float, float], settings: FrameSettings, generator: np.random.Generator, on_file_clock: bool
) -> torch.Tensor:
    """Return frames (T, H, W, 3) uint8 drawn from a span [start, end) in seconds, all with one random crop."""
    reader = _FileFrames(settings, generator, span, on_file_clock)
    frames, _ = read_video(video, reader.sample, num_threads=1, **reader.options())
    return torch.from_numpy(frames)


class _FileFrames:
    """Samples the frames of a file once its metadata is read, and resizes and crops each as soon as it is decoded.

    With a generator, frames are drawn from the intervals of a span in seconds, and the crop is drawn as well.
    """

    def __init__(
        self,
        settings: FrameSettings,
        generator: np.random.Generator | None = None,
        span: tuple[float, float] = (0.0, float("inf")),
        on_file_clock: bool = False,
    ):
        self.settings, self.generator, self.span, self.on_file_clock = settings, generator, span, on_file_clock
        self.geometry: FrameGeometry | None = None

    def sample(self, metadata: VideoFileMetadata) -> Sequence[int]:
        """Return the indices of the frames to read."""
        if self.generator is None:
            indices = self.settings.sample_indices(metadata)
        else:
            span = metadata.frame_span(*self.span, on_file_clock=self.on_file_clock)
            indices = random_interval_indices(*span, self.settings.num_frames, self.generator)
        self.geometry = geometry_for(metadata.height, metadata.width, self.settings, self.generator)
        return indices

    def transform(self, image: np.ndarray) -> np.ndarray:
        """Resize and crop one frame (H, W, 3)."""
        return self.geometry(torch.from_numpy(image)).numpy()

    def options(self) -> dict:
        """Return the arguments of `read_video` and `read_windows`."""
        return {
            "frame_transform": self.transform,
            "strict": self.settings.strict,
            "limits": self.settings.limits,
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
