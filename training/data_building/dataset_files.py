"""What a built dataset consists of: Parquet files by split, its report and its card."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from processing.atomic_files import write_whole
from processing.video_files import printable_name
from training.data_building.check_log import read_checks, read_results
from training.data_building.video_checks import VideoCheck

ROWS_PER_FILE = 5000
EXAMPLES_PER_RULE = 20  # in the report; the log of checks has all
ROWS_PER_GROUP = 100  # what is in memory at a time; transcripts can be long
FEATURES = datasets.Features(
    {
        "video": datasets.Value("string"),
        "duration": datasets.Value("float64"),
        "words": datasets.List({"word": datasets.Value("string"), "time": datasets.Value("float64")}),
        "shots": datasets.List(datasets.Value("float64")),
        "times_are_spread": datasets.Value("bool"),
        "transcript": datasets.Value("string"),
        "group": datasets.Value("string"),
        "content_hash": datasets.Value("string"),
    }
)


def split_of(group: str, heldout_ratio: float) -> str:
    """Return "train" or "heldout": a stable function of the group's name, so that new videos move no old ones."""
    number = int.from_bytes(hashlib.blake2b(group.encode(), digest_size=8).digest(), "big")
    return "heldout" if number < heldout_ratio * 2**64 else "train"


def write_output(
    output: Path,
    log: Path,
    places: Sequence[int],
    heldout_ratio: float,
    groups: dict[str, str],
    left_out: dict[str, list[str]],
    mark_similar: Callable[[VideoCheck], VideoCheck] | None = None,
) -> dict:
    """Write Parquet files, report and card of the checks at `places` of the log, and return the report."""
    checks = read_checks(log, places, mark_similar)
    report, accepted = _sort_out(zip(places, checks, strict=True), heldout_ratio, groups)
    report["left_out"] = {reason: sorted(map(printable_name, names)) for reason, names in sorted(left_out.items())}
    part = output / "data.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for split, accepted_places in accepted.items():
        _write_split(part, split, log, accepted_places, groups)
    shutil.rmtree(output / "data", ignore_errors=True)
    part.rename(output / "data")
    write_whole(output / "report.json", json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    write_whole(output / "README.md", _data_card(report))
    return report


def _write_split(folder: Path, split: str, log: Path, places: Sequence[int], groups: dict[str, str]) -> None:
    """Write the rows of the results at these places."""
    num_files = -(-len(places) // ROWS_PER_FILE)
    for index in range(num_files):
        own = places[index * ROWS_PER_FILE : (index + 1) * ROWS_PER_FILE]
        rows = (_row(check, groups) for check in read_results(log, own))
        write_rows(folder / f"{split}-{index:05d}-of-{num_files:05d}.parquet", rows)


def write_rows(file: Path, rows: Iterable[dict]) -> int:
    """Write rows of `FEATURES` to a Parquet file, a row group at a time, and return how many there were."""
    schema, num_rows, rows = FEATURES.arrow_schema, 0, iter(rows)
    with pq.ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))
            num_rows += len(group)
            del group  # before the next one is read
    return num_rows


def _row(check: VideoCheck, groups: dict[str, str]) -> dict:
    return {
        "video": check.video,
        "duration": check.duration,
        "words": [{"word": word, "time": time} for word, time in check.words],
        "shots": check.shots or None,
        "times_are_spread": check.times_are_spread,
        "transcript": check.transcript,
        "group": groups.get(check.video, check.video),
        "content_hash": check.content_hash,
    }


def _sort_out(
    checks: Iterable[tuple[int, VideoCheck]], heldout_ratio: float, groups: dict[str, str]
) -> tuple[dict, dict[str, list[int]]]:
    """Return the report, and the places of what was accepted, by split."""
    accepted: dict[str, list[int]] = {"train": [], "heldout": []}
    totals = Counter(words=0, seconds=0.0, spread=0, dropped=0, early=0, cuts=0)
    rejected: dict[str, list[dict[str, str]]] = {}
    several: list[dict] = []
    speech: dict[str, dict] = {}
    for place, check in checks:
        count_left_out(speech, check.video, check.left_out)
        if check.reason is not None:
            entry = {"video": printable_name(check.video), "detail": printable_name(check.detail)}
            rejected.setdefault(check.reason, []).append(entry)
            continue
        accepted[split_of(groups.get(check.video, check.video), heldout_ratio)].append(place)
        totals.update(words=len(check.words), seconds=check.duration, spread=check.times_are_spread)
        totals.update(dropped=check.num_dropped, early=check.num_early, cuts=max(0, len(check.shots) - 1))
        if check.others:
            others = [printable_name(name) for name in check.others]
            several.append({"video": check.video, "taken": printable_name(check.transcript), "not taken": others})
    report = {
        "accepted": {split: len(accepted_places) for split, accepted_places in accepted.items()},
        "num_words": totals["words"],
        "hours": round(totals["seconds"] / 3600, 3),
        "num_with_spread_times": totals["spread"],
        "num_pieces_with_impossible_times": totals["dropped"],
        "num_words_before_first_frame": totals["early"],
        "num_cuts": totals["cuts"],
        "num_with_several_transcripts": len(several),
        "speech_left_out": dict(sorted(speech.items())),
        "num_rejected": {reason: len(videos) for reason, videos in sorted(rejected.items())},
        "rejected": dict(sorted(rejected.items())),
        "several_transcripts": several,
    }
    return report, accepted


def count_left_out(speech: dict[str, dict], video: str, passages: Sequence[tuple[str, float, int, str]]) -> None:
    """Add the passages of speech left out of one video to the counts and examples by rule.

    Args:
        passages: rule, time in seconds, number of words and text of each, see `speech_rules.Finding`.
    """
    for rule in {rule for rule, *_ in passages}:
        empty = {"videos": 0, "passages": 0, "words": 0, "examples": []}
        speech.setdefault(rule, empty)["videos"] += 1
    for rule, time, num_words, text in passages:
        speech[rule]["passages"] += 1
        speech[rule]["words"] += num_words
        if len(speech[rule]["examples"]) < EXAMPLES_PER_RULE:
            speech[rule]["examples"].append({"video": video, "time": time, "text": text})


def _data_card(report: dict) -> str:
    splits = [split for split, number in report["accepted"].items() if number]
    files = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in splits)
    rejected = "\n".join(f"| {reason} | {number} |" for reason, number in report["num_rejected"].items())
    left_out = "\n".join(f"| {rule} | {found['words']} |" for rule, found in report["speech_left_out"].items())
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

Columns: `video` (path relative to the folder of videos, which is not part of this dataset), `duration` in seconds, \
`words` (`word`, `time` in seconds from the first frame), `shots` (where a shot starts, in seconds, if \
it was built with `--shots`), `times_are_spread`, `transcript` (the file they come from), \
`group` (all videos of a group are in one split), `content_hash`.

| rejected because | videos |
|---|---|
{rejected}

| speech left out because | words |
|---|---|
{left_out}

Each rejected video is named in `report.json`. The rights to videos and transcripts are their owners'; this card says
nothing about them.
"""
