"""A picture of each hit: the middle one of the frames that were embedded."""

from pathlib import Path

import numpy as np
import PIL.Image

from processing import VideoReadingError, read_video
from processing.atomic_files import whole_file

HEIGHT = 180


def write_thumbnail(video: Path, frame_index: int, file: Path) -> str | None:
    """Write a JPEG, whole or not at all; returns why there is none if the video cannot be read (any more)."""
    try:
        frames, _ = read_video(str(video), lambda metadata: [min(frame_index, metadata.total_num_frames - 1)])
    except VideoReadingError as error:
        return str(error)
    save_jpeg(frames[0], file)
    return None


def save_jpeg(frame: np.ndarray, file: Path) -> None:
    """Write a frame (H, W, 3) uint8, `HEIGHT` pixels high."""
    image = PIL.Image.fromarray(frame)
    image = image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT), PIL.Image.Resampling.LANCZOS)
    with whole_file(file) as temporary:
        image.save(temporary, format="JPEG", quality=88)
