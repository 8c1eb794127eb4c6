"""Time to take 12 frames from a video file: this project's reader beside others, in alternation, frames compared.

    python -m benchmarks.video_reading_speed --clips ../shared/clips

Readers that are not installed (`pip install tvtsv2[bench]`) or cannot load are left out and named in the record. Made
files are cached under --cache_dir; finished files are kept in the record and skipped when the command is run again.
Beside the record, a table of the same name ending in `.md` is written.

Every reader finds the number of frames by itself, as its users do, and takes the middle frames of 12 equal intervals. A
frame is "same" when it differs from the reference by less than 2 levels on average (readers round colours differently;
the next frame is further away), the reference being a full sequential decode.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata as package_metadata
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from benchmarks.video_reading_files import ENCODERS, VIDEO_EXTENSIONS, file_name, make_file
from processing import interval_midpoint_indices, read_video

NUM_FRAMES = 12
# The whole set of made files.
HEIGHTS, GOP_SIZES, SECONDS = [360, 1080], [30, 250], [10, 60, 600]
SAME_MEAN_LEVELS = 2.0
MAX_REPEATS = 7
SECONDS_PER_READER = 2.0  # repeats stop here; every reader runs at least once
PACKAGES = {"torchcodec": "torchcodec", "decord": "decord", "opencv": "opencv-python-headless"}

Reader = Callable[[str, int], np.ndarray]


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


def sample(metadata) -> np.ndarray:
    """Indices for the readers that ask for a function."""
    return interval_midpoint_indices(metadata.total_num_frames, NUM_FRAMES)


def decode_reference(path: str) -> np.ndarray:
    """The frames of a full decode; a second one where the number of packets turns out not to be that of frames."""
    with av.open(path, metadata_errors="ignore") as container:
        total = sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)
    while True:
        indices = interval_midpoint_indices(total, NUM_FRAMES).tolist()
        frames, index = {}, -1
        for index, frame in enumerate(_decode(path)):
            if index in indices:
                frames[index] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        if index + 1 == total:
            return np.stack([frames[index] for index in indices])
        total = index + 1


def _decode(path: str):
    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # threads make the concealment of damage vary
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


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


def measure_file(path: Path, runs: dict[str, tuple[str, int]]) -> dict:
    """Median milliseconds of each run (reader and threads) on one file, in alternation, and what its frames were.

    Beside the time passed stands that of all processor cores, which other work on the machine disturbs less.
    """
    reference = decode_reference(str(path))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    core_seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, dict] = {}
    active = list(runs)
    while active:
        for name in list(active):
            reader, num_threads = runs[name]
            started, cores_started = time.perf_counter(), time.process_time()
            try:
                frames = READERS[reader](str(path), num_threads)
            except Exception as error:
                results[name] = {"error": f"{type(error).__name__}: {str(error).strip()[:100]}"}
                active.remove(name)
                continue
            seconds[name].append(time.perf_counter() - started)
            core_seconds[name].append(time.process_time() - cores_started)
            results.setdefault(name, count_same(frames, reference))
            del frames
            if len(seconds[name]) >= MAX_REPEATS or sum(seconds[name]) >= SECONDS_PER_READER:
                active.remove(name)
    for name, times in seconds.items():
        if times and "error" not in results[name]:
            cores_ms = round(1000 * statistics.median(core_seconds[name]), 1)
            results[name] |= {"median_ms": round(1000 * statistics.median(times), 1), "cores_ms": cores_ms}
            results[name]["repeats"] = len(times)
    return results


def measure_peak_memory(path: Path, name: str, num_threads: int, cache_dir: Path) -> int:
    """Bytes a fresh process holds at most beyond what it held before it read."""
    code = (
        "import resource, sys\n"
        "from benchmarks.video_reading_speed import READERS\n"
        "usage = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "READERS['ours'](sys.argv[4], 1)\n"  # loads what is loaded once, on a small file
        "before = usage()\n"
        "READERS[sys.argv[2]](sys.argv[1], int(sys.argv[3]))\n"
        "print(usage() - before)\n"
    )
    small = make_file(cache_dir, "h264", 144, 30, 10)
    command = [sys.executable, "-c", code, str(path), name, str(num_threads), str(small)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


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


def list_not_run(rows: dict) -> list[str]:
    """The made files of the whole set that have no row."""
    whole_set = itertools.product(ENCODERS, HEIGHTS, GOP_SIZES, SECONDS)
    names = [file_name(*specification) for specification in whole_set]
    return [name for name in names if name not in rows]


def write_tables(record: dict, path: Path) -> None:
    """The record as two Markdown tables: time passed, and time of all cores."""
    titles = {"median_ms": "Time passed", "cores_ms": "Time of all processor cores, which a busy machine distorts less"}
    parts = [
        f"ms per file, in brackets times faster than transformers' PyAV reader. {record['device']}.",
        record["note"],
        f"Made files not run: {', '.join(record['not_run']) or 'none'}.",
    ]
    for measure, title in titles.items():
        parts.append(f"{title}:\n\n" + _format_table(record["rows"], measure))
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


def _format_table(rows: dict, measure: str) -> str:
    names = list(dict.fromkeys(name for row in rows.values() for name in row["readers"]))
    lines = ["| file | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for file, row in rows.items():
        slowest = row["readers"].get("transformers", {}).get(measure)
        cells = []
        for result in (row["readers"].get(name, {}) for name in names):
            cell = "error" if "error" in result else ""
            if measure in result:
                cell = f"{result[measure]:,.0f}" + (f" ({slowest / result[measure]:.1f})" if slowest else "")
                if result["same"] < NUM_FRAMES:
                    cell += f", {result['same']} of {NUM_FRAMES} right"
            cells.append(cell)
        lines.append(f"| {file} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="a folder of real files to read besides the made ones")
    parser.add_argument("--codecs", nargs="*", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--heights", nargs="*", type=int, default=HEIGHTS)
    parser.add_argument("--gop_sizes", nargs="*", type=int, default=GOP_SIZES)
    parser.add_argument("--seconds", nargs="*", type=int, default=SECONDS)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--cache_dir", type=Path, default=Path("outputs/video_reading_benchmark"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/video_reading_speed.json"))
    parser.add_argument("--note", default="", help="what a reader of the record should know about this run")
    parser.add_argument("--memory", action="store_true", help="measure peak memory too, one process per reader")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    readers, notes = find_readers(arguments.readers)
    record = json.loads(arguments.record.read_text()) if arguments.record.exists() else {"rows": {}}
    command = " ".join(["python -m benchmarks.video_reading_speed", *sys.argv[1:]])
    # A record may be filled in several runs, each of some of the files.
    record["commands"] = [*record.get("commands", []), command]
    record["device"] = f"{os.cpu_count()} cores, {platform.machine()}, PyAV {av.__version__}"
    record["readers"] = notes
    record["note"] = arguments.note or record.get("note", "")
    files = (
        []
        if arguments.clips is None
        else sorted(path for path in arguments.clips.iterdir() if path.suffix in VIDEO_EXTENSIONS)
    )
    specifications = [
        (codec, height, gop_size, seconds)
        for seconds in arguments.seconds
        for height in arguments.heights
        for codec in arguments.codecs
        for gop_size in arguments.gop_sizes
    ]
    jobs = [(lambda path=path: path) for path in files]
    jobs += [(lambda spec=spec: make_file(arguments.cache_dir, *spec)) for spec in specifications]
    runs = list_runs(readers, arguments.threads)
    for find_file in tqdm(jobs, desc="files"):
        path = find_file()
        if path.name in record["rows"]:
            continue
        row = {"megabytes": round(path.stat().st_size / 1e6, 1), "load_before": round(os.getloadavg()[0], 2)}
        row["readers"] = measure_file(path, runs)
        if arguments.memory:
            for name, result in row["readers"].items():
                if "error" not in result:
                    result["peak_bytes"] = measure_peak_memory(path, *runs[name], arguments.cache_dir)
        record["rows"][path.name] = row
        record["not_run"] = list_not_run(record["rows"])
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")
        write_tables(record, arguments.record.with_suffix(".md"))


if __name__ == "__main__":
    main()
