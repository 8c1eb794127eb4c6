"""What the frames of the reading benchmark are compared with: a full sequential decode, kept beside the files.

The decode of a made file that repeats a minute is that of the minute, over and over: each repeat starts with a closed
group of pictures. (transformers' reader, measured in the same run, decodes the whole file and is compared too.)
"""

from pathlib import Path

import av
import numpy as np

from benchmarks.speed.reading.rivals import NUM_FRAMES
from benchmarks.speed.reading.video_files import FPS, MAX_SECONDS_ENCODED
from processing import interval_midpoint_indices

# Readers round colours differently; the next frame is further away than this.
SAME_MEAN_LEVELS = 2.0


def find_reference(path: Path, cache_dir: Path, seconds: int | None = None) -> np.ndarray:
    """The frames all readers should give, (NUM_FRAMES, H, W, 3); decoded once, then taken from `cache_dir`.

    Args:
        seconds: Length of a made file, whose frames can be counted; None for other files.
    """
    kept = cache_dir / "references" / f"{path.name}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, _decode_repeated(path, seconds) if seconds else _decode_reference(path))
        partial.rename(kept)
    return np.load(kept, mmap_mode="r")


def count_same(frames: np.ndarray, reference: np.ndarray) -> dict[str, int]:
    """How many frames have the reference's pixels, and how many show the same picture."""
    if frames.shape != reference.shape:
        return {"equal": 0, "same": 0, "returned": len(frames)}
    differences = [np.abs(a.astype(np.int16) - b).mean() for a, b in zip(frames, reference, strict=True)]
    return {
        "equal": sum(bool(difference == 0) for difference in differences),
        "same": sum(bool(difference < SAME_MEAN_LEVELS) for difference in differences),
        "returned": len(frames),
    }


def _decode_reference(path: Path) -> np.ndarray:
    """The frames of a full decode; a second one where the number of packets turns out not to be that of frames."""
    with av.open(str(path), metadata_errors="ignore") as container:
        total = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    while True:
        indices = interval_midpoint_indices(total, NUM_FRAMES).tolist()
        frames, num_frames = _pick(path, set(indices))
        if num_frames == total:
            return np.stack([frames[index] for index in indices])
        total = num_frames


def _decode_repeated(path: Path, seconds: int) -> np.ndarray:
    num_encoded = min(seconds, MAX_SECONDS_ENCODED) * FPS
    indices = [index % num_encoded for index in interval_midpoint_indices(seconds * FPS, NUM_FRAMES).tolist()]
    minute = path.with_name(path.name.replace(f"_{seconds}s.", f"_{min(seconds, MAX_SECONDS_ENCODED)}s."))
    frames, num_frames = _pick(minute, set(indices))
    if num_frames != num_encoded:
        raise ValueError(f"{minute} has {num_frames} frames instead of {num_encoded}; delete it to have it made again.")
    return np.stack([frames[index] for index in indices])


def _pick(path: Path, indices: set[int]) -> tuple[dict[int, np.ndarray], int]:
    """Some frames out of a full decode, upright, and the number of all."""
    frames, index = {}, -1
    for index, frame in enumerate(_decode(path)):
        if index in indices:
            frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    return frames, index + 1


def _decode(path: Path):
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # threads make the concealment of damage vary
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue
