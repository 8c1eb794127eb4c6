"""How long `tvtsv2 embed` takes for an hour of 1080p: from the file to a store that can be searched, and its parts.

    taskset -c 0,1 python -m benchmarks.speed.hour
    taskset -c 0,1 python -m benchmarks.speed.hour --minutes 5 -- --keep 0.5

The video is H.264 with B-frames and a keyframe every 250 frames, made once in --cache; the model has random weights.
What follows `--` goes to `tvtsv2 embed`; for another backend than torch, the model is exported first, which is not
counted.

The parts are measured after the run, on a video of --part_minutes, by the same command in one process with one thread,
where nothing overlaps: seconds of one core. `packets_decoded` is the number of packets sent to a decoder over those in
the file: above 1, reads of neighboring windows decode some of them again.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch

import tvtsv2.embed
from benchmarks.records import make_record, write_record
from benchmarks.speed.gpu.commands import write_model
from benchmarks.speed.reading.video_files import FPS, make_file
from processing import frame_pixels_tvtsv2, reader_tvtsv2
from processing.reader_packets_tvtsv2 import PacketTable
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors
from tvtsv2.main import main as run_tvtsv2
from tvtsv2.reading import reading_processes

WINDOWS = ("--windows", "10", "--stride", "5")


def run_in_another_process(arguments: list[str]) -> str:
    """Return the output of a `tvtsv2` command.

    Raises:
        CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "tvtsv2", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure_run(model: Path, video: Path, options: list[str]) -> dict:
    """Return the seconds that the command takes, starting included, and the end of its output."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        output = run_in_another_process(["embed", str(model), str(video), f"{folder}/store", *WINDOWS, *options])
        seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "last_line": output.strip().splitlines()[-1]}


class ReadingHere:
    """Stands for `ReadingProcesses`: each call runs when it is submitted, in this process."""

    def __init__(self, reader, num_processes: int):
        self.reader = reader

    def __enter__(self) -> "ReadingHere":
        return self

    def __exit__(self, *error) -> None:
        pass

    def submit(self, function: Callable, *arguments) -> Future:
        future: Future = Future()
        reading_processes._reader = self.reader
        future.set_result(reading_processes._call(function, list(arguments)))
        return future


class Parts(Counter):
    """Seconds of a core per part, and the number of packets decoded."""

    def timed(self, part: str, function: Callable) -> Callable:
        """Return the function, which adds the time that it takes to a part."""

        def call(*arguments, **options):
            started = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self[part] += time.process_time() - started

        return call

    def counted(self, stream: Callable) -> Callable:
        """Return `PacketTable.stream`, which counts what it yields."""

        def call(*arguments) -> Iterator:
            for packet in stream(*arguments):
                self["packets"] += 1
                yield packet

        return call


def measure_parts(model: Path, video: Path, minutes: int, options: list[str]) -> dict:
    """Return the seconds of one core that a minute of video takes, by parts, and the share of packets decoded."""
    parts = Parts()
    transform_for = frame_pixels_tvtsv2.transform_for
    patches = [
        patch("tvtsv2.models.video_embedding.ReadingProcesses", ReadingHere),
        patch("tvtsv2.models.video_embedding.time", SimpleNamespace(perf_counter=time.process_time)),
        patch.object(ReadingHere, "submit", parts.timed("reading", ReadingHere.submit)),
        patch.object(reader_tvtsv2, "MAX_THREADS", 1),
        patch.object(reader_tvtsv2, "read_packet_table", parts.timed("table", reader_tvtsv2.read_packet_table)),
        patch.object(
            frame_pixels_tvtsv2, "transform_for", lambda *sizes: parts.timed("transform", transform_for(*sizes))
        ),
        patch.object(PacketTable, "stream", parts.counted(PacketTable.stream)),
        patch.object(tvtsv2.embed, "describe_limit", lambda seconds, _: parts.update(seconds) or ""),
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            for each in patches:
                stack.enter_context(each)
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            run_tvtsv2(["embed", str(model), str(video), f"{folder}/store", *WINDOWS, *options])
    finally:
        torch.set_num_threads(threads)
    parts["decode"] = parts["reading"] - parts["table"] - parts["transform"]
    names = ("table", "decode", "transform", "model", "store")
    return {
        "core_seconds_per_minute": {name: round(parts[name] / minutes, 3) for name in names},
        "packets_decoded": round(parts["packets"] / (60 * minutes * FPS), 3),
    }


@one_line_errors(OSError, ValueError)
def main(command_line: list[str] | None = None) -> None:
    """Run, print and write the record."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=at_least(1), default=60, help="length of the video (%(default)s)")
    parser.add_argument("--part_minutes", type=at_least(1), default=5, help="of it, for the parts (%(default)s)")
    parser.add_argument("--height", type=at_least(2), default=1080, help="pixels (%(default)s)")
    parser.add_argument("--small_model", action="store_true", help="a model of a test's size, not b16")
    parser.add_argument("--cache", type=Path, default=Path("outputs/hour"), help="folder of videos (%(default)s)")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/hour.json"))
    parser.add_argument("options", nargs="*", help="of tvtsv2 embed, after --")
    options = parser.parse_args(command_line)
    part_minutes = min(options.minutes, options.part_minutes)
    video, part = (
        make_file(options.cache, "h264", options.height, 250, 60 * minutes)
        for minutes in (options.minutes, part_minutes)
    )
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model", options.small_model)
        if "--backend" in options.options:
            calibrate = ["--calibrate", str(part)] if "int8" in options.options else []
            run_in_another_process(["export", str(model), str(model / "onnx"), *calibrate])
        whole = measure_run(model, video, options.options)
        parts = measure_parts(model, part, part_minutes, options.options)
    record = make_record(
        "benchmarks.speed.hour",
        arguments=command_line,
        minutes=options.minutes,
        model="small" if options.small_model else "b16, random weights",
        **whole,
        **parts,
    )
    write_record(options.record, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
