"""A picture of each hit: the middle one of the frames that were embedded."""

from pathlib import Path

import PIL.Image

from processing import read_video
from processing.atomic_files import whole_file

HEIGHT = 180


def write_thumbnail(video: Path, frame_index: int, file: Path) -> None:
    """Write a frame as a JPEG `HEIGHT` pixels high, whole or not at all.

    Raises:
        VideoReadingError: the video cannot be read (any more).
    """
    frames, _ = read_video(str(video), lambda metadata: [min(frame_index, metadata.total_num_frames - 1)])
    image = PIL.Image.fromarray(frames[0])
    image = image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT), PIL.Image.Resampling.LANCZOS)
    with whole_file(file) as temporary:
        image.save(temporary, format="JPEG", quality=88)
