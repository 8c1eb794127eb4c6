"""The readers that the reading benchmark compares, each called as its users call it.

Every reader finds the number of frames by itself and gives the middle frames of `NUM_FRAMES` equal intervals.
"""

from collections.abc import Callable
from importlib import metadata as package_metadata

import numpy as np

from processing import interval_midpoint_indices, read_video

NUM_FRAMES = 12
PACKAGES = {"torchcodec": "torchcodec", "decord": "decord", "opencv": "opencv-python-headless"}

# From a file and a number of threads to (T, H, W, 3) uint8 RGB.
Reader = Callable[[str, int], np.ndarray]


def sample(metadata) -> np.ndarray:
    """Indices for the readers that ask for a function."""
    return interval_midpoint_indices(metadata.total_num_frames, NUM_FRAMES)


def read_ours(path: str, num_threads: int) -> np.ndarray:
    """This project's reader."""
    return read_video(path, sample, num_threads=num_threads)[0]


def read_transformers(path: str, num_threads: int) -> np.ndarray:
    """transformers' PyAV reader; it has no setting for threads."""
    from transformers.video_utils import read_video_pyav

    return read_video_pyav(path, sample)[0]


def read_torchcodec(path: str, num_threads: int, seek_mode: str = "exact") -> np.ndarray:
    """torchcodec, in its default mode."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=num_threads, seek_mode=seek_mode)
    return decoder.get_frames_at(interval_midpoint_indices(len(decoder), NUM_FRAMES).tolist()).data.numpy()


def read_torchcodec_approximate(path: str, num_threads: int) -> np.ndarray:
    """torchcodec, trusting the header."""
    return read_torchcodec(path, num_threads, "approximate")


def read_decord(path: str, num_threads: int) -> np.ndarray:
    """decord."""
    import decord

    video = decord.VideoReader(path, num_threads=num_threads)
    return video.get_batch(interval_midpoint_indices(len(video), NUM_FRAMES).tolist()).asnumpy()


def read_opencv(path: str, num_threads: int) -> np.ndarray:
    """OpenCV, seeking to each frame."""
    import cv2

    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, num_threads])
    frames = []
    for index in interval_midpoint_indices(int(video.get(cv2.CAP_PROP_FRAME_COUNT)), NUM_FRAMES):
        video.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        found, frame = video.read()
        if found:
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return np.stack(frames)


READERS: dict[str, Reader] = {
    "ours": read_ours,
    "transformers": read_transformers,
    "torchcodec exact": read_torchcodec,
    "torchcodec approximate": read_torchcodec_approximate,
    "decord": read_decord,
    "opencv": read_opencv,
}


def find_readers(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Readers that load, with their versions, and why the others do not."""
    usable, notes = [], {}
    for name in names:
        package = PACKAGES.get(name.split()[0])
        try:
            if package:
                __import__({"opencv": "cv2"}.get(name, name.split()[0]))
                notes[name] = package_metadata.version(package)
            usable.append(name)
        except Exception as error:
            notes[name] = f"left out: {type(error).__name__} {str(error).strip().splitlines()[0][:100]}"
    return usable, notes


def list_runs(readers: list[str], thread_counts: list[int]) -> dict[str, tuple[str, int]]:
    """Each reader with each number of threads; transformers' has no such setting."""
    runs = {}
    for reader in readers:
        if reader == "transformers":
            runs[reader] = (reader, 0)
        else:
            runs |= {f"{reader}, {count} threads": (reader, count) for count in thread_counts}
    return runs
