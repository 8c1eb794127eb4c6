"""Records of runs: JSON that says everything about how a number came to be, without a path of the machine."""

import json
import math
import platform
import shlex
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.evaluation.embeddings.sources import VideoEmbeddings
from training.runtime.machine import device_name

FORMAT_VERSION = 1
COMPLETE, PARTIAL = "complete", "partial"
_LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "av", "numpy", "safetensors")


def count_videos(num_in_annotations: int, expected: int, videos: VideoEmbeddings) -> dict:
    """How many videos a part of a split has, and what became of them.

    Args:
        num_in_annotations: before `--max_videos`.
        expected: after it: those asked for.
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
    """`complete` where every annotated video of every part was evaluated, else `partial`."""
    complete = all(part["evaluated"] == part["in_annotations"] for part in parts.values())
    return COMPLETE if complete else PARTIAL


def make_record(*, arguments: list[str], **content) -> dict:
    """A record.

    Args:
        arguments: Of the command line; paths in it are cut to their last part.
        content: Everything else.
    """
    return {
        "format_version": FORMAT_VERSION,
        "command": shlex.join(["python", "-m", "benchmarks.run", *map(_without_folders, arguments)]),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **content,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def describe_device(device: torch.device | str) -> str:
    """A device by its maker's name; of a CPU also the cores and threads in use."""
    name = device_name(torch.device(device))
    return name if torch.device(device).type == "cuda" else f"{name}, {torch.get_num_threads()} threads"


def write_record(path: Path, record: dict) -> None:
    """Writes a record whole or not at all.

    Raises:
        ValueError: a number in it is not finite.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_records(folders: list[Path]) -> list[dict]:
    """All records of benchmark runs below folders, oldest first; other JSON files are left alone.

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
            raise ValueError(f"{file} has format {content.get('format_version')!r}, known is {FORMAT_VERSION}.")
        _check_record(file, content)
        records.append(content | {"file": file.name if file.name != "record.json" else file.parent.name})
    return sorted(records, key=lambda record: record["finished"])


def _check_record(file: Path, record: dict) -> None:
    """A record whose state does not follow from its own counts was changed by hand."""
    for name in ("data", "videos", "figures", "state", "model", "finished"):
        if name not in record:
            raise ValueError(f"{file} is a record without {name!r}.")
    if record["state"] != run_state(record["videos"]):
        raise ValueError(
            f"{file} says {record['state']!r}, but its counts of videos say {run_state(record['videos'])!r}."
        )


def top_figure(record: dict, name: str) -> float:
    """One figure's value: of text to video for retrieval, the mean over seeds for the linear probe."""
    figures = record["figures"]
    value = figures.get("text_to_video", figures)[name]["value"]
    value = record.get("seeds", {}).get(f"{name}_mean", value)
    if not math.isfinite(value):
        raise ValueError(f"{record['file']}: {name} is {value}.")
    return value


def _without_folders(argument: str) -> str:
    """A path cut to its last part; names on the hub and everything else as they are."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    is_path = "/" in value and (value.startswith((".", "/", "~")) or Path(value).exists())
    return name + equals + (Path(value).name if is_path else value)
