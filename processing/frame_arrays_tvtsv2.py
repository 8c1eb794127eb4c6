"""Videos in all the forms that callers pass, and those in memory as one kind of tensor, each examined by itself.

Axis legend: T frames, H height, W width, C colors.
"""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .frame_settings_tvtsv2 import FrameSettings
from .reader_container_tvtsv2 import VideoReadingError, VideoSource, source_name
from .reader_head_tvtsv2 import HEAD_BYTES, image_demuxer

COLOR_COUNTS = (1, 3, 4)
NO_IMAGE = (None, "apng")  # of `image_demuxer`: an animated PNG is a video
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def as_list(values: Any) -> Any:
    """Return a column of strings or objects (NumPy, pandas, pyarrow, `datasets`) as a list; anything else as it is."""
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind in "biufc" else values.tolist()
    if isinstance(values, list | tuple | Mapping | torch.Tensor) or is_file(values) or is_decoder(values):
        return values
    for method in ("to_pylist", "tolist"):
        if hasattr(values, method):
            return getattr(values, method)()
    return list(values) if isinstance(values, Iterable) else values


def list_videos(videos: Any) -> list:
    """Return the videos of a batch: the items of a list, nested or not, the slices of a 5-D array, or one video.

    A list of images, image files among them, is one video. `[[video], [video]]` is a batch of two, as in transformers.

    Raises:
        ValueError: The list is empty, or mixes images with videos.
    """
    videos = as_list(videos)
    if isinstance(videos, np.ndarray | torch.Tensor) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, list | tuple):
        return [videos]
    if not videos:
        raise ValueError("There are no videos: the list is empty.")
    num_images = sum(is_image(item) for item in videos)
    if num_images == len(videos):
        return [videos]
    if num_images:
        raise ValueError(
            f"The list mixes {num_images} single frames with {len(videos) - num_images} other items; "
            "a list holds either the frames of one video or whole videos."
        )
    return [video for item in videos for video in (list_videos(item) if isinstance(item, list | tuple) else [item])]


def list_images(images: Any) -> list[list]:
    """Return a batch of images, given as a list, nested or not, an array, or one image, as lists of one.

    Arrays are (B, H, W, C), (B, C, H, W), or (B, H, W) where neither B nor W can be a number of colors.

    Raises:
        ValueError: The list is empty, or a dict holds no file.
        TypeError: An item is no image.
    """
    images, _ = split_metadata(as_list(images))
    if isinstance(images, np.ndarray | torch.Tensor) and (images.ndim == 4 or is_gray_video(images)):
        images = list(images)
    if not isinstance(images, list | tuple):
        if not is_image(images):
            raise TypeError(
                f"Expected an image: of PIL, an array of 2 or 3 axes, or the path of an image file, got "
                f"{_describe(images)}; give texts and videos by name."
            )
        return [[images]]
    if not images:
        raise ValueError("There are no images: the list is empty.")
    return [image for item in images for image in list_images(item)]


def split_metadata(video: Any) -> tuple[Any, Any]:
    """Return what a dict of a video holds, and its metadata or None; anything else as it is.

    The dicts are {"array", "video_metadata"}, as sentence-transformers has them, and {"path", "bytes"}, as `datasets`
    has them with `Video(decode=False)`.
    """
    if not isinstance(video, Mapping):
        return video, None
    if "array" in video and video.keys() <= {"array", "video_metadata"}:
        return video["array"], video.get("video_metadata")
    if video and video.keys() <= {"path", "bytes"}:
        content = video.get("path") if video.get("bytes") is None else video["bytes"]
        if content is not None:
            return content, None
    raise ValueError(
        'A video given as a dict needs "array" (and "video_metadata"), or one of "path" and "bytes", got '
        f"{sorted(map(str, video))}."
    )


def list_metadata(videos: list, video_metadata: Any) -> list[VideoMetadata | None]:
    """Return the metadata given for each video, or None.

    Raises:
        ValueError: The numbers of videos and of metadata differ.
    """
    if video_metadata is None:
        return [None] * len(videos)
    return make_batched_metadata(videos, video_metadata)


def is_file(video: Any) -> bool:
    """Return whether a video is a path, bytes or a file object."""
    return isinstance(video, str | bytes | os.PathLike) or hasattr(video, "read")


def is_decoder(video: Any) -> bool:
    """Return whether a video is a `torchcodec.decoders.VideoDecoder`, as `datasets.Video()` returns it."""
    return hasattr(video, "get_frames_at") and hasattr(video, "metadata")


def is_image(item: Any) -> bool:
    """Return whether an item is a single image: a PIL image, an array of 2 or 3 axes, or an image file, also in a dict.

    An array of 3 axes whose first or last has 1, 3 or 4 entries is an image, as in transformers; of any other shape, it
    is a gray video (T, H, W).
    """
    item, _ = split_metadata(item)
    if isinstance(item, np.ndarray | torch.Tensor):
        return item.ndim in (2, 3) and not is_gray_video(item)
    return isinstance(item, PIL.Image.Image) or is_image_file(item)


def is_gray_video(array: np.ndarray | torch.Tensor) -> bool:
    """Return whether an array is a gray video (T, H, W): neither T nor W can be a number of colors."""
    return array.ndim == 3 and array.shape[0] not in COLOR_COUNTS and array.shape[2] > max(COLOR_COUNTS)


def is_image_file(item: Any) -> bool:
    """Return whether an item is an image file: a path by its suffix, bytes or a file object by their first bytes."""
    if isinstance(item, str | os.PathLike):
        return PurePath(os.fsdecode(item)).suffix.lower() in IMAGE_SUFFIXES
    if hasattr(item, "read") and hasattr(item, "seek"):
        item.seek(0)
        item, file = item.read(HEAD_BYTES), item
        file.seek(0)
    return isinstance(item, bytes) and image_demuxer(item[:HEAD_BYTES]) not in NO_IMAGE


def as_frames(video: Any, settings: FrameSettings) -> torch.Tensor:
    """Return a video held in memory, or a list of frames or of image files, as one tensor.

    Returns:
        `(T, H, W, 3)`, uint8, or float32 from 0 to 255. T is 1 for an image.

    Raises:
        TypeError, ValueError: Not an image or video, an unclear layout, or values out of range.
        VideoReadingError: An image file cannot be read.
    """
    if isinstance(video, list | tuple):
        frames = [as_frames(frame, settings) for frame in video]
        if not frames or len({(frame.shape[1:], frame.dtype) for frame in frames}) > 1:
            raise ValueError("The frames of a video must be at least one, of one size and one dtype.")
        return torch.cat(frames)
    video, _ = split_metadata(video)
    if is_image_file(video):
        video = _open_image(video, settings)
    if isinstance(video, PIL.Image.Image):
        if video.mode != "RGB" and not settings.do_convert_rgb:
            raise ValueError(f"With do_convert_rgb=False, an image must be RGB, got one of mode {video.mode!r}.")
        _check_depth(video)
        return torch.from_numpy(np.array(PIL.ImageOps.exif_transpose(video).convert("RGB")))[None]
    if isinstance(video, np.ndarray):
        video = torch.from_numpy(np.require(video, requirements=["C", "W"]))
    if not isinstance(video, torch.Tensor):
        raise TypeError(f"Expected a path, an image, an array of frames or a list of frames, got {_describe(video)}.")
    return _check_values(_channels_last(video, settings))


def _check_values(frames: torch.Tensor) -> torch.Tensor:
    if frames.numel() == 0:
        raise ValueError(f"An array of frames of shape {tuple(frames.shape)} holds no pixels.")
    if frames.dtype == torch.uint8:
        return frames
    if not frames.is_floating_point():
        raise ValueError(f"Pixels must be uint8 (0 to 255) or floats in [0, 1], got {frames.dtype}.")
    if not (frames.min() >= 0 and frames.max() <= 1):
        raise ValueError(
            f"Pixels must be uint8 (0 to 255) or floats in [0, 1], got {frames.dtype} "
            f"from {frames.min().item()} to {frames.max().item()}."
        )
    return frames.float() * 255


def _channels_last(video: torch.Tensor, settings: FrameSettings) -> torch.Tensor:
    """Return (T, H, W, 3) of an array (H, W), (H, W, C), (C, H, W), (T, H, W), (T, H, W, C) or (T, C, H, W).

    C is 1, 3 or 4; for three axes see `is_image`.
    """
    if video.ndim not in (2, 3, 4):
        raise ValueError(f"An image has 2 or 3 axes and a video 3 or 4, got an array of shape {tuple(video.shape)}.")
    if video.ndim == 2 or is_gray_video(video):
        if not settings.do_convert_rgb:
            raise ValueError(
                f"With do_convert_rgb=False, pixels must be RGB, got gray ones of shape {tuple(video.shape)}."
            )
        frames = video[None] if video.ndim == 2 else video
        return frames[..., None].expand(-1, -1, -1, 3)
    frames = video[None] if video.ndim == 3 else video
    # Three colors are the rule, so that (T, 3, H, 4) is channels-first.
    for counts in ((3,), (1, 4) if settings.do_convert_rgb else ()):
        first, last = _fits(frames, counts, settings.input_data_format)
        if first and last:
            raise ValueError(
                f"Of the layouts (T, C, H, W) and (T, H, W, C), a video of shape {tuple(video.shape)} fits both; set "
                "`input_data_format`."
            )
        if first or last:
            frames = frames.movedim(1, 3) if first else frames
            return frames.expand(-1, -1, -1, 3) if frames.shape[3] == 1 else frames[..., :3]
    raise ValueError(
        f"Of the layouts (T, 3, H, W) and (T, H, W, 3), a video of shape {tuple(video.shape)} fits neither"
        + ("." if settings.do_convert_rgb else "; do_convert_rgb=True accepts 1 and 4 channels as well.")
    )


def _fits(frames: torch.Tensor, counts: tuple[int, ...], input_data_format: str | None) -> tuple[bool, bool]:
    if input_data_format not in (None, "channels_first", "channels_last"):
        raise ValueError(f"`input_data_format` must be 'channels_first' or 'channels_last', got {input_data_format!r}.")
    first = frames.shape[1] in counts and input_data_format != "channels_last"
    return first, frames.shape[3] in counts and input_data_format != "channels_first"


def _open_image(source: VideoSource, settings: FrameSettings) -> PIL.Image.Image:
    path = source_name(source)
    try:
        with PIL.Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1:
                raise VideoReadingError(f"Cannot read image {path!r}: it holds {num_frames} images, not one.")
            if image.width * image.height > settings.limits.max_frame_pixels:
                raise VideoReadingError(
                    f"Cannot read image {path!r}: {image.width}x{image.height} exceeds max_frame_pixels="
                    f"{settings.limits.max_frame_pixels}."
                )
            _check_depth(image)
            image.load()
            return image
    # PIL raises SyntaxError and others for damaged files.
    except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError) as cause:
        if isinstance(cause, VideoReadingError):
            raise
        raise VideoReadingError(f"Cannot read image {path!r}: {cause}") from cause


def _check_depth(image: PIL.Image.Image) -> None:
    """Raise `ValueError` for more than 8 bits per color, of which PIL's conversion to RGB turns all above 255 white."""
    if image.mode[0] in "IF":
        raise ValueError(f"an image must have 8 bits per color, got mode {image.mode!r}; scale its values to 0 to 255.")


def _describe(item: Any) -> str:
    shape = f" of shape {tuple(item.shape)}" if isinstance(item, np.ndarray | torch.Tensor) else ""
    return type(item).__name__ + shape
