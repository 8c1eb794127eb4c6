"""How fast a data set is built, packed and read, and whether memory stays flat; every step is the project's command.

    python -m benchmarks.speed.data_building --num_videos 300 --rows 1000 100000

Each command runs in a process of its own with one thread. Core seconds are those of all processor cores, which other
work on the machine distorts less than time passed. What a command takes with one video is taken off as its start-up.
Memory is anonymous memory, looked at 20 times a second: what only ending the process gives back, without the pages of
mapped files, which the system takes back when it needs them. (Not `ru_maxrss`: that starts at what the parent held.)
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np

from benchmarks.records import make_record, write_record
from benchmarks.speed.reading.video_files import make_file
from processing.video_files import find_videos
from training.cost.reading_speed import memory_mebibytes
from training.data_building.candidates import find_candidates
from training.data_building.video_checks import VideoCheck
from training.transcripts.alignment import align_clean_text

RECORD = Path("benchmarks/records/data_building_speed.json")
WORDS_PER_SECOND = 3
ROWS_PER_GROUP = 100  # as the builder writes them


@dataclass
class Cost:
    """What a command took: time passed, time of all cores, and the most anonymous memory its first process held."""

    seconds: float
    core_seconds: float
    anonymous_mebibytes: int
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
        anonymous, ended = 0.0, 0
        while not ended:
            anonymous = max(anonymous, memory_mebibytes("RssAnon", process.pid))
            time.sleep(0.05)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{module} {' '.join(arguments)} failed: {errors.read()[-2000:]}")
        core_seconds = usage.ru_utime + usage.ru_stime
        return Cost(seconds, core_seconds, round(anonymous), output.read())


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
        costs[number] = run("training.data_building.build_dataset", *arguments, "--heldout_ratio", "0")
    again = run("training.data_building.build_dataset", *arguments, "--heldout_ratio", "0")
    core_seconds = costs[num_videos].core_seconds - costs[1].core_seconds
    return {
        "num_videos": num_videos,
        "checks_per_core_second": round((num_videos - 1) / core_seconds, 1),
        "start_up_core_seconds": round(costs[1].core_seconds, 1),
        "anonymous_mebibytes": costs[num_videos].anonymous_mebibytes,
        "anonymous_mebibytes_of_one_video": costs[1].anonymous_mebibytes,
        "core_seconds_of_a_second_run": round(again.core_seconds, 1),
    }


def measure_reading(folder: Path, num_videos: int, num_samples: int) -> dict:
    """Samples a second of the single files, of tar shards and of Parquet shards."""
    dataset, videos = folder / f"dataset{num_videos}", folder / f"footage{num_videos}"
    sources = {"single files": {"format": "built", "dataset": str(dataset), "videos": str(videos)}}
    for shard_format in ("tar", "parquet"):
        output = folder / shard_format
        run(
            "training.data_building.pack_shards",
            *("--dataset", str(dataset), "--videos", str(videos), "--output", str(output)),
            *("--shard_format", shard_format, "--shard_megabytes", "64"),
        )
        sources[f"{shard_format} shards"] = {"format": "shards", "shards": str(output)}
    return {name: _read(source, num_samples) for name, source in sources.items()}


def measure_alignment(num_words: int = 5000, repeats: int = 5) -> dict:
    """Seconds (median) to align a cleaned-up text to the words heard: a third misheard, some of both lost."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    cleaned = ["".join(rng.choice(letters, size=rng.integers(2, 10))) for _ in range(num_words)]
    heard = [word[1:] + "e" if rng.random() < 1 / 3 else word for word in cleaned if rng.random() < 0.97]
    cleaned = [word for word in cleaned if rng.random() < 0.97]
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        align_clean_text(heard, cleaned)
        seconds.append(time.perf_counter() - started)
    return {"num_heard": len(heard), "num_cleaned": len(cleaned), "seconds": round(float(np.median(seconds)), 3)}


def measure_memory(folder: Path, num_videos: int, row_counts: list[int], num_samples: int) -> dict:
    """Anonymous memory by number of rows: of writing a data set of checked videos, and of reading samples of it."""
    videos, peaks = folder / f"footage{num_videos}", {}
    for num_rows in row_counts:
        dataset = repeat_rows(folder / f"dataset{num_videos}", folder / f"rows{num_rows}", num_rows)
        source = {"format": "built", "dataset": str(dataset), "videos": str(videos)}
        checked, output = make_checked_footage(folder / f"checked{num_rows}", num_rows)
        writing = run(
            "training.data_building.build_dataset",
            "--videos",
            str(checked),
            "--output",
            str(output),
            "--num_workers",
            "1",
        )
        reading = _read(source, num_samples)
        peaks[str(num_rows)] = {
            "writing": writing.anonymous_mebibytes,
            "reading": reading["peak_anonymous_mebibytes"],
            "reading, with mapped files": reading["peak_mebibytes"],
        }
    return peaks


def make_checked_footage(folder: Path, num_videos: int) -> tuple[Path, Path]:
    """A folder of empty files that stand for videos, and a data set's folder whose ledger says they are all good."""
    videos, output = folder / "videos", folder / "dataset"
    videos.mkdir(parents=True)
    output.mkdir()
    for index in range(num_videos):
        (videos / f"{index:08d}.mp4").touch()
        (videos / f"{index:08d}.srt").touch()
    words = tuple((f"word{number}", number / WORDS_PER_SECOND) for number in range(30 * WORDS_PER_SECOND))
    with open(output / "checks.jsonl", "w") as log:
        for candidate in find_candidates(videos, find_videos(videos).names, videos, "4 3"):
            check = VideoCheck(candidate.video, candidate.signature, duration=30.0, words=words)
            log.write(replace(check, content_hash=candidate.video).to_json() + "\n")
    return videos, output


def _read(source: dict, num_samples: int) -> dict:
    return json.loads(run("training.cost.reading_speed", json.dumps(source), "--num_samples", str(num_samples)).output)


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
        record = make_record(
            "benchmarks.speed.data_building",
            load_before=round(os.getloadavg()[0], 1),
            video=f"h264, {arguments.height} lines, {arguments.seconds} s",
            alignment=measure_alignment(),
            building=measure_building(folder, arguments.num_videos, arguments.height, arguments.seconds),
            reading=measure_reading(folder, arguments.num_videos, arguments.num_samples),
            mebibytes_by_rows=measure_memory(folder, arguments.num_videos, arguments.rows, arguments.num_samples),
        )
    finally:
        shutil.rmtree(folder)
    write_record(arguments.record, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
