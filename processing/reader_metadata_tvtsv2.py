"""What reading a video file tells about it."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from transformers.video_utils import VideoMetadata


class VideoWindowError(ValueError):
    """A window that is empty or lies outside its video."""


@dataclass
class VideoFileMetadata(VideoMetadata):
    """What is known of a video file and of the frames taken from it.

    To the fields of `transformers` (`total_num_frames`: frames that decode, `fps`: their number over `duration`,
    `duration`: seconds from the first frame shown to the end of the last, `width` and `height`: of the frames,
    upright if they are returned so) come:

    Attributes:
        rotation: Degrees counter-clockwise that turn the stored frames upright; applied to what is returned.
        frame_seconds: Presentation time, as written in the file, of every frame of the video.
        taken_seconds: The same for the frames taken, in the order of `frames_indices`.
        reading_method: How frames were found: by "packet_table", or "sequential" (the whole stream decoded, twice
            if its frames are too many to keep).
        sequential_reason: Why the packet table was not certain enough.
        num_undecodable_packets: Packets the decoder refused; their frames do not exist for this reader.
        is_truncated: The file ends before its container says so. Told for MP4 and MOV with a whole index, for Matroska
            and WebM that state their size, and for AVI; in other containers (MPEG transport and program streams, FLV,
            ASF, Ogg, GIF) it is not looked for, and a cut file mostly reads as a shorter one.
    """

    rotation: int = 0
    frame_seconds: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    taken_seconds: list[float] | None = None
    reading_method: str = "sequential"
    sequential_reason: str | None = None
    num_undecodable_packets: int = 0
    is_truncated: bool = False

    @property
    def timestamps(self) -> list[float]:
        """Seconds from the first frame of the video to each frame taken."""
        if self.taken_seconds is None:
            raise ValueError("There are no timestamps before frames are taken.")
        return [float(seconds - self.frame_seconds[0]) for seconds in self.taken_seconds]

    def frame_span(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The frames [first, last + 1) of a window [start_seconds, end_seconds), in seconds from the first frame.

        These are the frames that begin in the window; where none does, the one that is on display when it starts.

        Raises:
            VideoWindowError: The window is empty, or lies outside the video.
        """
        if not 0 <= start_seconds < end_seconds or start_seconds >= self.duration:
            raise VideoWindowError(
                f"The window [{start_seconds}, {end_seconds}) s is empty or outside the video of {self.duration:.3f} s."
            )
        times = self.frame_seconds - self.frame_seconds[0]
        first, end = np.searchsorted(times, [start_seconds, end_seconds])
        return (int(first), int(end)) if first < end else (int(first) - 1, int(first))
