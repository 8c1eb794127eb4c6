"""How fast a data set is built, packed and read, and whether memory stays flat; every step is the project's command.

    python -m benchmarks.data_building_speed --num_videos 300 --rows 1000 100000

Each command runs in a process of its own with one thread. Core seconds are those of all processor cores, which other
work on the machine distorts less than time passed. What a command takes with one video is taken off as its start-up.
Peak memory counts pages of memory-mapped files too: those of a long data set's table, which the system takes back.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import av
import datasets

from benchmarks.video_reading_files import make_file

RECORD = Path("benchmarks/records/data_building_speed.json")
WORDS_PER_SECOND = 3
ROWS_PER_GROUP = 100  # as the builder writes them


@dataclass
class Cost:
    """What a command took: time passed, time of all cores, and the most memory one of its processes held."""

    seconds: float
    core_seconds: float
    peak_mebibytes: int
    output: str


def run(module: str, *arguments: str) -> Cost:
    """Cost of `python -m module arguments`.

    Raises:
        RuntimeError: it failed; its last words.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=output, stderr=errors, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{module} {' '.join(arguments)} failed: {errors.read()[-2000:]}")
        core_seconds = usage.ru_utime + usage.ru_stime
        return Cost(seconds, core_seconds, usage.ru_maxrss // 1024, output.read())


def make_footage(folder: Path, num_videos: int, *, height: int, seconds: int) -> Path:
    """A folder of videos of the same pictures and different content, with subtitles beside them."""
    folder.mkdir(parents=True)
    content = make_file(folder.parent, "h264", height, 30, seconds).read_bytes()
    cues = [
        f"{second}\n00:{second // 60:02d}:{second % 60:02d},000 --> 00:{second // 60:02d}:{second % 60:02d},990\n"
        + " ".join(f"word{second * WORDS_PER_SECOND + number}" for number in range(WORDS_PER_SECOND))
        for second in range(seconds)
    ]
    for index in range(num_videos):
        name = f"{index:08d}".encode()
        # A box that players skip makes the file another one.
        (folder / f"{index:08d}.mp4").write_bytes(content + (8 + len(name)).to_bytes(4, "big") + b"free" + name)
        (folder / f"{index:08d}.srt").write_text("\n\n".join(cues))
    return folder


def repeat_rows(dataset: Path, output: Path, num_rows: int) -> Path:
    """A data set of `num_rows` rows, those of a built one over and over, in row groups of its size."""
    rows = datasets.load_dataset("parquet", data_files=str(dataset / "data" / "train-*.parquet"), split="train")
    (output / "data").mkdir(parents=True)
    repeated = rows.select([index % len(rows) for index in range(num_rows)])
    repeated.to_parquet(output / "data" / "train-00000-of-00001.parquet", batch_size=ROWS_PER_GROUP)
    return output


def measure_building(folder: Path, num_videos: int, height: int, seconds: int) -> dict:
    """Checks per core second, and what a second run over the same files takes."""
    costs = {}
    for number in (1, num_videos):
        videos = make_footage(folder / f"footage{number}", number, height=height, seconds=seconds)
        arguments = ("--videos", str(videos), "--output", str(folder / f"dataset{number}"), "--num_workers", "1")
        costs[number] = run("training.build_dataset", *arguments, "--heldout_ratio", "0")
    again = run("training.build_dataset", *arguments, "--heldout_ratio", "0")
    core_seconds = costs[num_videos].core_seconds - costs[1].core_seconds
    return {
        "num_videos": num_videos,
        "checks_per_core_second": round((num_videos - 1) / core_seconds, 1),
        "start_up_core_seconds": round(costs[1].core_seconds, 1),
        "peak_mebibytes": costs[num_videos].peak_mebibytes,
        "peak_mebibytes_of_one_video": costs[1].peak_mebibytes,
        "core_seconds_of_a_second_run": round(again.core_seconds, 1),
    }


def measure_reading(folder: Path, num_videos: int, num_samples: int) -> dict:
    """Samples a second of the single files, of tar shards and of Parquet shards."""
    dataset, videos = folder / f"dataset{num_videos}", folder / f"footage{num_videos}"
    sources = {"single files": {"format": "built", "dataset": str(dataset), "videos": str(videos)}}
    for shard_format in ("tar", "parquet"):
        output = folder / shard_format
        run(
            "training.pack_shards",
            *("--dataset", str(dataset), "--videos", str(videos), "--output", str(output)),
            *("--shard_format", shard_format, "--shard_megabytes", "64"),
        )
        sources[f"{shard_format} shards"] = {"format": "shards", "shards": str(output)}
    return {name: _read(source, num_samples) for name, source in sources.items()}


def measure_memory(folder: Path, num_videos: int, row_counts: list[int], num_samples: int) -> dict:
    """Peak memory of reading samples of data sets of different lengths, anonymous and with mapped files' pages."""
    videos, peaks = folder / f"footage{num_videos}", {}
    for num_rows in row_counts:
        dataset = repeat_rows(folder / f"dataset{num_videos}", folder / f"rows{num_rows}", num_rows)
        source = {"format": "built", "dataset": str(dataset), "videos": str(videos)}
        figures = _read(source, num_samples)
        peaks[str(num_rows)] = {"anonymous": figures["peak_anonymous_mebibytes"], "all": figures["peak_mebibytes"]}
    return peaks


def _read(source: dict, num_samples: int) -> dict:
    return json.loads(run("training.reading_speed", json.dumps(source), "--num_samples", str(num_samples)).output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--num_videos", type=int, default=300, help="videos to check and read, at least 2")
    parser.add_argument("--height", type=int, default=240, help="pixels")
    parser.add_argument("--seconds", type=int, default=30, help="length of each video, below an hour")
    parser.add_argument("--num_samples", type=int, default=200, help="read from each source")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 100_000], help="lengths to compare memory at")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder, removed at the end")
    parser.add_argument("--record", type=Path, default=RECORD, help="JSON file to write")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="data_building_", dir=arguments.folder))
    try:
        record = {
            "command": " ".join(["python -m benchmarks.data_building_speed", *sys.argv[1:]]),
            "device": f"{os.cpu_count()} cores, {platform.machine()}, PyAV {av.__version__}",
            "load_before": round(os.getloadavg()[0], 1),
            "video": f"h264, {arguments.height} lines, {arguments.seconds} s",
            "building": measure_building(folder, arguments.num_videos, arguments.height, arguments.seconds),
            "reading": measure_reading(folder, arguments.num_videos, arguments.num_samples),
            "peak_mebibytes_by_rows": measure_memory(
                folder, arguments.num_videos, arguments.rows, arguments.num_samples
            ),
        }
    finally:
        shutil.rmtree(folder)
    arguments.record.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
