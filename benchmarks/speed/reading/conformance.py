"""Which frames readers return for files that make readers fail: a table of right, wrong and refused frames.

    python -m benchmarks.speed.reading.conformance

Compares this project's reader, transformers' PyAV reader, torchcodec (exact and approximate), decord and OpenCV with a
full sequential decode at 12 midpoints, on one thread and on two. The files are those of
`tests/support/conformance_videos.py`. Readers that are not installed (`pip install tvtsv2[bench]`) are named in the
record. Beside the record, a table of the same name ending in `.md` is written. Nothing is timed.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.records import make_record, markdown_table, write_record
from benchmarks.speed.reading.rivals import READERS, find_readers, list_runs
from processing import interval_midpoint_indices
from tests.support.conformance_videos import WRITERS
from tests.support.video_files import decode_all
from training.runtime.command_errors import OneLineParser, one_line_errors

# Readers round colors differently; the next frame is further away than this.
SAME_MEAN_LEVELS = 2.0
OUTCOMES = ("right", "wrong", "refused")


def judge(read: Callable[[], np.ndarray], expected: list[np.ndarray]) -> str:
    """Return "refused" for an error, "right" where all frames are the expected ones, else "wrong"."""
    try:
        frames = read()
    except Exception:
        return "refused"
    if len(frames) != len(expected):
        return "wrong"
    pairs = zip(frames, expected, strict=True)
    is_right = all(a.shape == b.shape and np.abs(a.astype(int) - b).mean() < SAME_MEAN_LEVELS for a, b in pairs)
    return "right" if is_right else "wrong"


def judge_file(path: Path, runs: dict[str, tuple[str, int]]) -> dict[str, str]:
    """Return the outcome of each run (reader and threads) on one file."""
    images, _ = decode_all(path)
    expected = [images[index] for index in interval_midpoint_indices(len(images), 12)]
    return {
        name: judge(lambda reader=reader, threads=threads: READERS[reader](str(path), threads), expected)
        for name, (reader, threads) in runs.items()
    }


def format_table(record: dict) -> str:
    """Return the record as Markdown: counts per reader, then a row per file."""
    files, names = record["files"], record["runs"]
    counts = [
        [f"**{outcome}**, of {len(files)}", *(sum(row[name] == outcome for row in files.values()) for name in names)]
        for outcome in OUTCOMES
    ]
    rows = ([file, *(row[name] for name in names)] for file, row in files.items())
    lines = [
        "12 midpoints of each file, compared with a full sequential decode; a reader that raises has refused the file.",
        "Readers: " + ", ".join(f"{name} ({note})" for name, note in record["readers"].items()) + ".",
        "",
        markdown_table(["", *names], [*counts, *rows]),
    ]
    return "\n".join(lines) + "\n"


@one_line_errors(OSError, ValueError)
def main() -> None:
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/video_reading_conformance.json"))
    arguments = parser.parse_args()
    readers, notes = find_readers(list(READERS))
    runs = list_runs(readers, [1, 2])
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in tqdm(WRITERS.items()):
            files[name] = judge_file(write(Path(folder) / name), runs)
    record = make_record("benchmarks.speed.reading.conformance", readers=notes, runs=list(runs), files=files)
    versions = record["versions"]
    notes |= {"ours": f"PyAV {versions['av']}", "transformers": versions["transformers"]}
    write_record(arguments.record, record)
    arguments.record.with_suffix(".md").write_text(format_table(record), encoding="utf-8")
    print(format_table(record))


if __name__ == "__main__":
    main()
