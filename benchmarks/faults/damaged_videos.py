"""Read randomly mutated copies of video files in another process: frames or a clear error, never anything else.

    python -m benchmarks.faults.damaged_videos --sources my_videos --num_mutations 1000 \
        --record benchmarks/records/video_reading_fuzz.json

Each mutation is a function of (seed, number), so a failure can be made again with --first NUMBER --num_mutations 1. The
process has an address-space limit; where it dies or takes too long, that is a crash or a hang of the mutation.
"""

import argparse
import collections
import json
import os
import random
import resource
import time
from concurrent.futures import TimeoutError
from pathlib import Path

from pebble import ProcessExpired, ProcessPool
from tqdm import tqdm

from benchmarks.records import make_record, write_record
from benchmarks.speed.reading.video_files import ENCODERS, make_file
from processing import VideoLimits, VideoReadingError, interval_midpoint_indices, read_video
from processing.video_files import find_videos
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least
from training.runtime.worker_processes import worker_context

MAX_SECONDS = 90
MEMORY_LIMIT_BYTES = 6 * 2**30  # of addresses; torch alone reserves about 4 GiB
NUM_FRAMES = 12


def mutate(data: bytes, generator: random.Random) -> bytes:
    """A damaged copy: changed bytes (anywhere, or in the headers), and sometimes lost, zeroed, doubled or cut parts."""
    copy = bytearray(data)
    for _ in range(generator.choice([1, 3, 10, 100])):
        copy[generator.randrange(len(copy))] = generator.randrange(256)
    if generator.random() < 0.5:
        header = generator.choice([64, 1024, 16384])
        for _ in range(generator.choice([1, 4, 16])):
            copy[generator.randrange(min(header, len(copy)))] = generator.choice([0, 1, 127, 128, 255])
    kind = generator.choice(["none", "none", "zero", "remove", "double", "cut"])
    start = generator.randrange(len(copy))
    end = min(len(copy), start + generator.choice([4, 256, 8192]))
    if kind == "zero":
        copy[start:end] = bytes(end - start)
    elif kind == "remove":
        del copy[start:end]
    elif kind == "double":
        copy[start:start] = copy[start:end]
    elif kind == "cut":
        del copy[start:]
    return bytes(copy) or b"\0"


def limit_memory() -> None:
    """Prepare the process that reads."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # FFmpeg complains about every broken byte
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


def read_mutation(sources: list[Path], seed: int, number: int) -> dict:
    """Return what reading a mutation gave."""
    generator = random.Random(f"{seed} {number}")
    data = mutate(generator.choice(sources).read_bytes(), generator)
    started = time.monotonic()
    try:
        frames, metadata = read_video(
            data,
            lambda metadata: interval_midpoint_indices(metadata.total_num_frames, NUM_FRAMES),
            strict=generator.random() < 0.5,
            limits=VideoLimits(max_decode_seconds=30, max_memory_bytes=2**30),
        )
        enough = len(frames) == min(NUM_FRAMES, metadata.total_num_frames)
        outcome, detail = ("frames" if enough else "silently short"), metadata.reading_method
    except VideoReadingError as error:
        outcome, detail = "error", str(error).split(":", 1)[-1].strip()[:60]
    except Exception as error:
        outcome, detail = "other exception", repr(error)[:200]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"outcome": outcome, "detail": detail, "seconds": time.monotonic() - started, "peak": peak}


def read_mutations(sources: list[Path], seed: int, numbers: range) -> list[dict]:
    """Return the outcomes of mutations; a crash or a hang costs one of them."""
    outcomes = []
    with ProcessPool(1, initializer=limit_memory, context=worker_context("processing")) as pool:
        for number in tqdm(numbers, desc="mutations"):
            try:
                found = pool.schedule(read_mutation, (sources, seed, number), timeout=MAX_SECONDS).result()
            except (ProcessExpired, TimeoutError) as error:
                found = {"outcome": type(error).__name__, "detail": str(error), "seconds": 0.0, "peak": 0}
            outcomes.append(found | {"number": number})
    return outcomes


def collect_sources(arguments: argparse.Namespace) -> list[Path]:
    """Return the files to damage: those of the folders given, and one made file of each codec."""
    given = [folder / name for folder in arguments.sources for name in find_videos(folder).names]
    made = [make_file(arguments.cache_dir, codec, 144, 30, 10) for codec in ENCODERS]
    return sorted(given) + made


@one_line_errors(OSError, ValueError)
def main() -> None:
    parser = OneLineParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", type=Path, nargs="*", default=[], help="folders of video files to damage")
    parser.add_argument("--cache_dir", type=Path, default=Path("outputs/video_reading_benchmark"))
    parser.add_argument("--num_mutations", type=at_least(1), default=1000)
    parser.add_argument("--first", type=at_least(0), default=0)
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    sources = collect_sources(arguments)
    numbers = range(arguments.first, arguments.first + arguments.num_mutations)
    outcomes = read_mutations(sources, arguments.seed, numbers)
    counts = collections.Counter(outcome["outcome"] for outcome in outcomes)
    details = collections.Counter(f"{outcome['outcome']}: {outcome['detail']}" for outcome in outcomes)
    record = make_record(
        "benchmarks.faults.damaged_videos",
        sources=[path.name for path in sources],
        outcomes=counts,
        details=details.most_common(30),
        longest_seconds=round(max(outcome["seconds"] for outcome in outcomes), 2),
        peak_resident_bytes=max(outcome["peak"] for outcome in outcomes),
        failures=[outcome for outcome in outcomes if outcome["outcome"] not in ("frames", "error")],
    )
    print(json.dumps(record, indent=1))
    if arguments.record:
        write_record(arguments.record, record)


if __name__ == "__main__":
    main()
