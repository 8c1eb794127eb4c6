"""Time to take 12 frames from a video file: this project's reader beside others, in alternation, frames compared.

    python -m benchmarks.speed.reading.video_reading --clips my_videos
    python -m benchmarks.speed.reading.video_reading --heights 1080 --seconds 600

Making the files and the frames to compare with takes many minutes; both are kept under --cache_dir. Measured files are
kept in the record and skipped when the command is run again, so that it may be filled in pieces. Readers that are not
installed (`pip install tvtsv2[bench]`) or cannot load are left out and named in the record. Beside the record, a table
of the same name ending in `.md` is written.

A frame is "same" when it differs from the reference, a full sequential decode, by less than 2 levels on average.
"""

import argparse
import itertools
import json
import os
import random
import statistics
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import make_record, write_record
from benchmarks.speed.reading.reference import count_same, find_reference
from benchmarks.speed.reading.rivals import READERS, find_readers, list_runs
from benchmarks.speed.reading.tables import write_tables
from benchmarks.speed.reading.video_files import ENCODERS, make_file
from processing.video_files import find_videos
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least

MAX_REPEATS = 15
SECONDS_PER_READER = 2.0  # repeats stop here; every reader runs at least once


def measure_file(path: Path, runs: dict[str, tuple[str, int]], reference: np.ndarray) -> dict:
    """Median milliseconds of each run (reader and threads) on one file, in alternation, and what its frames were.

    Beside the time passed stands that of all processor cores, which other work on the machine disturbs less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    core_seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, dict] = {}
    active = list(runs)
    path.read_bytes()  # whoever comes first would otherwise pay for bringing the file into memory
    order = random.Random(path.name)  # nobody is always first, behind what another one left in the caches
    while active:
        for name in order.sample(active, len(active)):
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


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, help="a folder of real files to read besides the made ones")
    parser.add_argument("--codecs", nargs="*", default=list(ENCODERS), choices=list(ENCODERS))
    parser.add_argument("--heights", nargs="+", type=at_least(1), default=[360, 1080])
    parser.add_argument("--gop_sizes", nargs="+", type=at_least(1), default=[30, 250])
    parser.add_argument("--seconds", nargs="+", type=at_least(1), default=[10, 60, 600])
    parser.add_argument("--threads", nargs="+", type=at_least(1), default=[1, 2])
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--cache_dir", type=Path, default=Path("outputs/video_reading_benchmark"))
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/video_reading_speed.json"))
    parser.add_argument("--note", default="", help="what a reader of the record should know about this run")
    return parser.parse_args()


def open_record(arguments: argparse.Namespace, notes: dict[str, str]) -> dict:
    """Return the record so far, which may be filled in several runs, each of some of the files."""
    old = json.loads(arguments.record.read_text(encoding="utf-8")) if arguments.record.exists() else {}
    note = arguments.note or old.get("note", "")
    record = make_record("benchmarks.speed.reading.video_reading", readers=notes, note=note, rows=old.get("rows", {}))
    record["commands"] = [*old.get("commands", []), record.pop("command")]
    return record


@one_line_errors(OSError, ValueError)
def main() -> None:
    arguments = parse_arguments()
    readers, notes = find_readers(arguments.readers)
    record = open_record(arguments, notes)
    runs = list_runs(readers, arguments.threads)
    clips = [arguments.clips / name for name in find_videos(arguments.clips).names] if arguments.clips else []
    made = itertools.product(arguments.codecs, arguments.heights, arguments.gop_sizes, arguments.seconds)
    for source in tqdm([*clips, *made], desc="files"):
        path = source if isinstance(source, Path) else make_file(arguments.cache_dir, *source)
        if path.name in record["rows"]:
            continue
        reference = find_reference(path, arguments.cache_dir)
        record["rows"][path.name] = {
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "load_before": round(os.getloadavg()[0], 2),
            "readers": measure_file(path, runs, reference),
        }
        write_record(arguments.record, record)
        write_tables(record, arguments.record.with_suffix(".md"))


if __name__ == "__main__":
    main()
