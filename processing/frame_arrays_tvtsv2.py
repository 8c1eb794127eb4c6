"""Videos held in memory (arrays, tensors, images) as one kind of tensor, each examined for itself.

Axis legend: T frames, H height, W width.
"""

from typing import Any

import numpy as np
import PIL.Image
import torch


def list_videos(videos: Any) -> list:
    """The videos of a batch, untouched: a list of videos, the slices of a 5-D array, or one video as a list of one.

    Raises:
        TypeError, ValueError: No video at all, or frames mixed with videos.
    """
    if isinstance(videos, np.ndarray | torch.Tensor) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, list | tuple):
        return [videos]
    if not videos:
        raise ValueError("There are no videos: the list is empty.")
    num_frames = sum(_is_frame(item) for item in videos)
    if num_frames == len(videos):
        return [videos]
    if num_frames:
        raise ValueError(
            f"The list mixes {num_frames} single frames with {len(videos) - num_frames} other items; "
            "a list holds either the frames of one video or whole videos."
        )
    return list(videos)


def as_frames(video: Any, input_data_format: str | None = None) -> tuple[torch.Tensor, bool]:
    """One video held in memory as a tensor, and whether it was a single image.

    Returns:
        `(T, H, W, 3)`, uint8 or float32 from 0 to 255.

    Raises:
        TypeError, ValueError: Not an image or video, an unclear layout, or values out of range.
    """
    if isinstance(video, list | tuple):
        frames = [as_frames(frame, input_data_format)[0] for frame in video]
        if not frames or len({(frame.shape, frame.dtype) for frame in frames}) > 1:
            raise ValueError("The frames of a video must be at least one, of one size and one dtype.")
        return torch.cat(frames), False
    if isinstance(video, PIL.Image.Image):
        return torch.from_numpy(np.array(video.convert("RGB")))[None], True
    if isinstance(video, np.ndarray):
        video = torch.from_numpy(np.ascontiguousarray(video))
    if not isinstance(video, torch.Tensor):
        raise TypeError(
            f"Expected a path, an image, an array of frames or a list of frames, got {type(video).__name__}."
        )
    if video.ndim not in (3, 4):
        raise ValueError(f"An image has 3 axes and a video 4, got an array of shape {tuple(video.shape)}.")
    is_image = video.ndim == 3
    frames = _channels_last(video[None] if is_image else video, input_data_format)
    if frames.numel() == 0:
        raise ValueError(f"An array of shape {tuple(video.shape)} holds no pixels.")
    if frames.dtype == torch.uint8:
        return frames, is_image
    if not frames.is_floating_point() or frames.min() < 0 or frames.max() > 1:
        raise ValueError(
            f"Pixels must be uint8 (0 to 255) or floats in [0, 1], got {frames.dtype} "
            f"from {frames.min().item()} to {frames.max().item()}."
        )
    return frames.float() * 255, is_image


def _channels_last(frames: torch.Tensor, input_data_format: str | None) -> torch.Tensor:
    first, last = frames.shape[1] == 3, frames.shape[3] == 3
    if input_data_format is not None:
        if input_data_format not in ("channels_first", "channels_last"):
            raise ValueError(
                f"`input_data_format` must be 'channels_first' or 'channels_last', got {input_data_format!r}."
            )
        first, last = first and input_data_format == "channels_first", last and input_data_format == "channels_last"
    if first == last:
        problem = "both: set `input_data_format`" if first else "neither"
        raise ValueError(
            f"Of the layouts (T, 3, H, W) and (T, H, W, 3), a video of shape {tuple(frames.shape)} fits {problem}."
        )
    return frames.movedim(1, 3) if first else frames


def _is_frame(item: Any) -> bool:
    return isinstance(item, PIL.Image.Image) or (isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 3)
