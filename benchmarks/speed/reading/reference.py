"""What the frames of the reading benchmark are compared with: a full sequential decode, kept beside the files."""

from pathlib import Path

import av
import numpy as np

from benchmarks.speed.reading.rivals import NUM_FRAMES
from processing import interval_midpoint_indices

# Readers round colours differently; the next frame is further away than this.
SAME_MEAN_LEVELS = 2.0


def find_reference(path: Path, cache_dir: Path) -> np.ndarray:
    """Return the frames all readers should give, (NUM_FRAMES, H, W, 3); decoded once, then taken from `cache_dir`."""
    kept = cache_dir / "references" / f"{path.name}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, _decode_reference(path))
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
