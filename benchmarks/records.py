"""Records of runs: JSON that says how a number came to be. The one writer and the one reader of them."""

import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch

from processing.atomic_files import write_whole
from training.runtime.machine import device_name, library_versions

FORMAT_VERSION = 2  # 1 held percent under "figures"
COMPLETE, PARTIAL = "complete", "partial"


def make_record(
    module: str, *, device: torch.device | str = "cpu", arguments: list[str] | None = None, **content
) -> dict:
    """Return a record: the command that made it, when, on what device, with which versions, and `content`.

    Args:
        module: as `python -m` takes it.
        device: where the numbers come from.
        arguments: of the command line; None: those of this process. Paths below the working directory become
            relative to it, so the command runs again there as it stands.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    return {
        "format_version": FORMAT_VERSION,
        "command": shlex.join(["python", "-m", module, *map(_relative, arguments)]),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **content,
        "device": describe_device(device),
        "load": round(os.getloadavg()[0], 2),
        "versions": library_versions(),
    }


def describe_device(device: torch.device | str) -> str:
    """Return a device by its maker's name; of a CPU also the cores and the threads in use."""
    name = device_name(torch.device(device))
    return name if torch.device(device).type == "cuda" else f"{name}, {torch.get_num_threads()} threads"


def write_record(path: Path, record: dict) -> None:
    """Write a record whole or not at all.

    Raises:
        ValueError: a number in it is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Return a Markdown table; what would break a cell is escaped."""
    lines = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in (head, *rows))
    head_line, *row_lines = (f"| {line} |" for line in lines)
    return "\n".join([head_line, "|" + " --- |" * len(head), *row_lines])


def count_videos(num_in_annotations: int, expected: int, videos) -> dict:
    """Return how many videos a part of a split has, and what became of them.

    Args:
        num_in_annotations: before `--max_videos`.
        expected: after it: those asked for.
        videos: their `VideoEmbeddings`.
    """
    return {
        "in_annotations": num_in_annotations,
        "expected": expected,
        "found": expected - len(videos.missing),
        "broken": len(videos.broken),
        "evaluated": len(videos.names),
        "missing_names": videos.missing[:20],
        "broken_names": dict(list(videos.broken.items())[:20]),
    }


def run_state(parts: dict[str, dict]) -> str:
    """Return `complete` where every annotated video of every part was evaluated, else `partial`."""
    complete = all(part["evaluated"] == part["in_annotations"] for part in parts.values())
    return COMPLETE if complete else PARTIAL


def read_records(folders: list[Path]) -> list[dict]:
    """Return all records of evaluation runs below folders, oldest first; other JSON files are left alone.

    Raises:
        ValueError: a record is broken or of another format.
    """
    records = []
    for file in sorted(file for folder in folders for file in folder.rglob("*.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file} is no JSON ({error}).") from error
        if not isinstance(content, dict) or "protocol" not in content:
            continue
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{file} has record format {content.get('format_version')!r}, and {FORMAT_VERSION} is read; run its "
                "command again."
            )
        _check_record(file, content)
        records.append(content | {"file": file.name if file.name != "record.json" else file.parent.name})
    return sorted(records, key=lambda record: record["finished"])


def _check_record(file: Path, record: dict) -> None:
    """Raise `ValueError` for a record whose state does not follow from its own counts: it was changed by hand."""
    for name in ("data", "videos", "metrics", "state", "model", "finished"):
        if name not in record:
            raise ValueError(f"{file} is a record without {name!r}.")
    if record["state"] != run_state(record["videos"]):
        raise ValueError(
            f"{file} says {record['state']!r}, but its counts of videos say {run_state(record['videos'])!r}."
        )


def top_metric(record: dict, name: str) -> float:
    """Return a metric's value: of text to video for retrieval, the mean over seeds for the linear probe."""
    metrics = record["metrics"]
    value = metrics.get("text_to_video", metrics)[name]["value"]
    value = record.get("seeds", {}).get(f"{name}_mean", value)
    if not math.isfinite(value):
        raise ValueError(f"{record['file']}: {name} is {value}.")
    return value


def _relative(argument: str) -> str:
    """Return a path below the working directory relative to it; everything else as it is."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if value.startswith("/") and Path(value).is_relative_to(Path.cwd()):
        value = str(Path(value).relative_to(Path.cwd()))
    return name + equals + value
