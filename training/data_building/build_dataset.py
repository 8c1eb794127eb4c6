"""A data set for pre-training from any folder of narrated videos and their transcripts.

    python -m training.data_building.build_dataset --videos footage --output footage_dataset
    python -m training.data_building.build_dataset --videos footage --transcripts subtitles --output footage_dataset \
        --groups channels.csv --group_column channel

Transcripts are SRT, WebVTT, Whisper JSON or YT-Temporal JSON files named like their videos. In the output folder:

    data/train-*.parquet, data/heldout-*.parquet    one row a video, paths relative to the folder of videos
    README.md                                       the data card
    report.json                                     every rejected video under its reason
    checks.jsonl                                    all checks' results: a second run checks what is new or changed
"""

import argparse
import hashlib
import json
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from training.data_building.check_ledger import find_results, read_checks
from training.data_building.video_checks import (
    UNREADABLE_VIDEO,
    Candidate,
    VideoCheck,
    check_key,
    check_video,
    find_candidates,
)
from training.runtime.process_pool import run_in_processes
from training.sources.table_files import read_table

ROWS_PER_FILE = 5000
ROWS_PER_GROUP = 100  # what is in memory at a time; transcripts can be long
FEATURES = datasets.Features(
    {
        "video": datasets.Value("string"),
        "duration": datasets.Value("float64"),
        "words": datasets.List({"word": datasets.Value("string"), "time": datasets.Value("float64")}),
        "times_are_spread": datasets.Value("bool"),
        "group": datasets.Value("string"),
        "content_hash": datasets.Value("string"),
    }
)


def build_dataset(
    videos: Path,
    output: Path,
    *,
    transcripts: Path | None = None,
    num_clips: int = 4,
    min_words: int = 3,
    heldout_ratio: float = 0.05,
    groups: dict[str, str] | None = None,
    num_workers: int | None = None,
) -> dict:
    """The report of a data set built, or brought up to date, in `output`; see this module's first lines.

    Args:
        videos, transcripts: folders; transcripts lie beside the videos unless given.
        num_clips, min_words: what a video must have room for, see `ClipSampler`.
        heldout_ratio: share of groups that go to the "heldout" split, [0, 1).
        groups: video path -> group (a channel, a person); all videos of one group fall in one split. A video without
            an entry is a group of its own.
        num_workers: processes; all cores unless given.

    Raises:
        FileNotFoundError: a folder doesn't exist.
        ValueError: `output` holds other files, no video was found, or an argument is out of range.
    """
    transcripts = transcripts or videos
    _check_folders(videos, transcripts, output)
    if not 0 <= heldout_ratio < 1:
        raise ValueError(f"heldout_ratio must be at least 0 and less than 1, got {heldout_ratio}")
    ledger = output / "checks.jsonl"
    places, todo = find_results(find_candidates(videos, transcripts, num_clips, min_words), ledger)
    if not places:
        raise ValueError(f"there is no video in {videos}")
    output.mkdir(parents=True, exist_ok=True)
    check = partial(check_video, videos=videos, transcripts=transcripts, num_clips=num_clips, min_words=min_words)
    _check_missing(todo, places, ledger, check, num_workers or os.cpu_count() or 1)
    return _write_output(output, ledger, places, heldout_ratio, groups or {})


def _check_folders(videos: Path, transcripts: Path, output: Path) -> None:
    for folder in (videos, transcripts):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
    if output.exists() and any(output.iterdir()) and not (output / "checks.jsonl").exists():
        raise ValueError(f"{output} holds other files than a data set built here: give an empty or a new folder")


def _check_missing(
    todo: dict[bytes, tuple[int, Candidate]], places: array, ledger: Path, check: partial, num_workers: int
) -> None:
    """Checks what is to do and fills in its places."""
    candidates = [candidate for _, candidate in todo.values()]
    num_workers = min(num_workers, max(1, len(candidates)))
    results = run_in_processes(check, candidates, num_workers=num_workers, on_death=_record_death)
    with open(ledger, "ab") as file:
        for result in tqdm(results, total=len(todo), desc="checking videos", unit="video", disable=not todo):
            places[todo[check_key(result.video, result.signature)][0]] = file.tell()
            file.write(result.to_json().encode() + b"\n")
            file.flush()


def _record_death(candidate: Candidate) -> VideoCheck:
    detail = "the process that read it died"
    return VideoCheck(candidate.video, candidate.signature, reason=UNREADABLE_VIDEO, detail=detail)


def split_of(group: str, heldout_ratio: float) -> str:
    """ "train" or "heldout": a stable function of the group's name, so that new videos move no old ones."""
    number = int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big")
    return "heldout" if number < heldout_ratio * 2**64 else "train"


def _write_output(
    output: Path, ledger: Path, places: Sequence[int], heldout_ratio: float, groups: dict[str, str]
) -> dict:
    report, accepted = _sort_out(ledger, places, heldout_ratio, groups)
    part = output / "data.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for split, accepted_places in accepted.items():
        _write_split(part, split, ledger, accepted_places, groups)
    shutil.rmtree(output / "data", ignore_errors=True)
    part.rename(output / "data")
    (output / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (output / "README.md").write_text(_data_card(report), encoding="utf-8")
    return report


def _write_split(folder: Path, split: str, ledger: Path, places: Sequence[int], groups: dict[str, str]) -> None:
    """Writes the rows of the results at these places; no more than a row group of them is in memory."""
    num_files = -(-len(places) // ROWS_PER_FILE)
    schema = FEATURES.arrow_schema
    for index in range(num_files):
        end = min(len(places), (index + 1) * ROWS_PER_FILE)
        with pq.ParquetWriter(folder / f"{split}-{index:05d}-of-{num_files:05d}.parquet", schema) as writer:
            for first in range(index * ROWS_PER_FILE, end, ROWS_PER_GROUP):
                checks = read_checks(ledger, places[first : min(end, first + ROWS_PER_GROUP)])
                writer.write_table(pa.Table.from_pylist([_row(check, groups) for check in checks], schema))


def _row(check: VideoCheck, groups: dict[str, str]) -> dict:
    return {
        "video": check.video,
        "duration": check.duration,
        "words": [{"word": word, "time": time} for word, time in check.words],
        "times_are_spread": check.times_are_spread,
        "group": groups.get(check.video, check.video),
        "content_hash": check.content_hash,
    }


def _sort_out(
    ledger: Path, places: Sequence[int], heldout_ratio: float, groups: dict[str, str]
) -> tuple[dict, dict[str, list[int]]]:
    """The report, and the places of what was accepted, by split."""
    accepted: dict[str, list[int]] = {"train": [], "heldout": []}
    totals = Counter(words=0, seconds=0.0, spread=0)
    rejected: dict[str, list[dict[str, str]]] = {}
    for place, check in zip(places, read_checks(ledger, places), strict=True):
        if check.reason is not None:
            rejected.setdefault(check.reason, []).append(
                {"video": _printable(check.video), "detail": _printable(check.detail)}
            )
            continue
        accepted[split_of(groups.get(check.video, check.video), heldout_ratio)].append(place)
        totals.update(words=len(check.words), seconds=check.duration, spread=check.times_are_spread)
    report = {
        "accepted": {split: len(accepted_places) for split, accepted_places in accepted.items()},
        "num_words": totals["words"],
        "hours": round(totals["seconds"] / 3600, 3),
        "num_with_spread_times": totals["spread"],
        "num_rejected": {reason: len(videos) for reason, videos in sorted(rejected.items())},
        "rejected": dict(sorted(rejected.items())),
    }
    return report, accepted


def _printable(text: str) -> str:
    """Text that any file takes, also of a name that is not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def _data_card(report: dict) -> str:
    splits = [split for split, number in report["accepted"].items() if number]
    files = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits)
    rejected = "\n".join(f"| {reason} | {number} |" for reason, number in report["num_rejected"].items())
    return f"""---
configs:
- config_name: default
  data_files:
{files}
---
# Narrated videos with timed words

{report["accepted"]["train"]} videos to train on, {report["accepted"]["heldout"]} held out; {report["hours"]} hours, \
{report["num_words"]} words. In {report["num_with_spread_times"]} of the videos only whole segments were timed, and \
their words were spread over each segment (`times_are_spread`).

Columns: `video` (path relative to the folder of videos, which is not part of this data set), `duration` in seconds, \
`words` (`word`, `time` in seconds), `times_are_spread`, `group` (all videos of a group are in one \
split), `content_hash`.

| rejected because | videos |
|---|---|
{rejected}

Each rejected video is named in `report.json`. The rights to videos and transcripts are their owners'; this card says
nothing about them.
"""


def read_groups(file: Path, group_column: str) -> dict[str, str]:
    """Video path -> group from a table with the columns `video` and `group_column`."""
    table = read_table(file, ["video", group_column])
    return dict(zip(table.columns["video"], table.columns[group_column], strict=True))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Build a data set for pre-training from a folder of narrated videos and their transcripts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--videos", type=Path, required=True, help="folder of videos, searched with all its folders")
    parser.add_argument("--output", type=Path, required=True, help="empty, new, or built here before")
    parser.add_argument("--transcripts", type=Path, help="folder of transcripts, if not beside the videos")
    parser.add_argument("--num_clips", type=int, default=4, help="clips that must fit into a video")
    parser.add_argument("--min_words", type=int, default=3, help="words that each clip must have")
    parser.add_argument("--heldout_ratio", type=float, default=0.05, help="share of the groups that are held out")
    parser.add_argument("--groups", type=Path, help="CSV with a column `video` and --group_column")
    parser.add_argument("--group_column", default="group", help="videos equal in it fall in the same split")
    parser.add_argument("--num_workers", type=int, help="processes; all cores unless given")
    return parser.parse_args()


def main() -> None:
    arguments = vars(_parse_arguments())
    groups, column = arguments.pop("groups"), arguments.pop("group_column")
    report = build_dataset(**arguments, groups=read_groups(groups, column) if groups else None)
    print(f"accepted: {report['accepted']['train']} to train on, {report['accepted']['heldout']} held out")
    for reason, number in report["num_rejected"].items():
        print(f"rejected, {reason}: {number}")
    print(f"the list of rejected videos: {arguments['output'] / 'report.json'}")


if __name__ == "__main__":
    main()
