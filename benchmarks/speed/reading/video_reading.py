"""Time that readers take for 12 frames of a video file, in turns, and which of them return the right frames.

    python -m benchmarks.speed.reading.video_reading                              # one made file per codec
    python -m benchmarks.speed.reading.video_reading --clips my_videos
    python -m benchmarks.speed.reading.video_reading --height 360 --seconds 600   # made files of another size

Made files are kept under --cache_dir. Right are the frames of a full sequential decode. Readers that are not installed
(`pip install tvtsv2[bench]`) are named in the record. Beside it, a table of the same name ending in `.md` is written.
"""

import argparse
import functools
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.records import make_record, markdown_table, write_record
from benchmarks.speed.reading.conformance import judge
from benchmarks.speed.reading.rivals import NUM_FRAMES, READERS, find_readers, list_runs
from benchmarks.speed.reading.video_files import ENCODERS, make_file
from benchmarks.speed.towers.timing import time_alternately
from processing import interval_midpoint_indices
from processing.video_files import find_videos
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors


def measure_file(path: Path, runs: dict[str, tuple[str, int]], repeats: int) -> dict[str, dict]:
    """Return of each run (reader and threads) on a file whether its frames are right, and its times."""
    readers = {name: functools.partial(READERS[reader], str(path), threads) for name, (reader, threads) in runs.items()}
    expected = decode_midpoints(path)
    results = {name: {"outcome": judge(read, expected)} for name, read in readers.items()}
    timed = {name: read for name, read in readers.items() if results[name]["outcome"] != "refused"}
    for name, timing in time_alternately(timed, torch.device("cpu"), repeats).items():
        results[name] |= timing.record()
    return results


def decode_midpoints(path: Path) -> list[np.ndarray]:
    """Return the frames that readers should return, (H, W, 3) each, from a full sequential decode."""
    wanted = set(interval_midpoint_indices(sum(1 for _ in _decode(path)), NUM_FRAMES).tolist())
    frames = (frame for index, frame in enumerate(_decode(path)) if index in wanted)
    return [np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames]


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1  # threads make the concealment of damage vary
        for packet in container.demux(stream):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def format_table(files: dict[str, dict[str, dict]], names: list[str]) -> str:
    """Return the median milliseconds per file as Markdown, and which frames are wrong or refused."""

    def cell(result: dict) -> str:
        time = f"{result['median_ms']:,.0f}" if "median_ms" in result else ""
        return ", ".join(filter(None, (time, result["outcome"] if result["outcome"] != "right" else "")))

    rows = [[file, *(cell(row[name]) for name in names)] for file, row in files.items()]
    return markdown_table([f"ms for {NUM_FRAMES} frames", *names], rows)


@one_line_errors(OSError, ValueError)
def main() -> None:
    """Run, print and write the record."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="a folder of files to read instead of made ones")
    parser.add_argument("--height", type=at_least(2), default=1080, help="pixels of made files (%(default)s)")
    parser.add_argument("--seconds", type=at_least(1), default=60, help="length of made files (%(default)s)")
    parser.add_argument("--repeats", type=at_least(1), default=5, help="timed reads per reader (%(default)s)")
    parser.add_argument("--cache_dir", type=Path, default=Path("outputs/video_reading"), help="of made files")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/video_reading.json"))
    options = parser.parse_args()
    readers, notes = find_readers(list(READERS))
    runs = list_runs(readers, [1, 2])
    if options.clips:
        paths = [options.clips / name for name in find_videos(options.clips).names]
    else:
        paths = [make_file(options.cache_dir, codec, options.height, 250, options.seconds) for codec in ENCODERS]
    files = {path.name: measure_file(path, runs, options.repeats) for path in tqdm(paths, desc="files")}
    write_record(options.record, make_record("benchmarks.speed.reading.video_reading", readers=notes, files=files))
    table = format_table(files, list(runs))
    options.record.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
