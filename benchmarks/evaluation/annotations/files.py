"""Annotation files as published: lines and JSON with errors that name file and line, and the checksum of a split.

Tables with a header are read by `training.sources.table_files`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_lines(file: str | Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a UTF-8 file that are not blank, stripped, each after its place for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not UTF-8.
    """
    file = _existing(file)
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").split("\n"), start=1):
            if line.strip():
                yield f"{file.name}, line {number}", line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); convert it, for example with iconv.") from error


def read_json(file: str | Path, kind: type) -> Any:
    """The content of a JSON file whose outermost value is a `kind`.

    Raises:
        ValueError: the file is no JSON, or something else is outermost.
    """
    file = _existing(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # of decoding and of parsing
        raise ValueError(f"{file} is no JSON file ({error}).") from error
    if not isinstance(content, kind):
        raise ValueError(f"{file} must hold a {kind.__name__}, but holds a {type(content).__name__}.")
    return content


def text_field(entry: Any, name: str, place: str) -> str:
    """`entry[name]` as a text that is not empty.

    Raises:
        ValueError: `entry` is no object, or has no such text.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: no text in the field {name!r}.")
    return value.strip()


def check_unique(names: list[str], kind: str, file: str | Path) -> None:
    """Raises `ValueError` if there are no names, or one stands there twice."""
    if not names:
        raise ValueError(f"{file} has no {kind} in it: the split is empty.")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{file} has the {kind} {name!r} more than once; each may stand there once.")
        seen.add(name)


def split_checksum(*content: Any) -> str:
    """SHA-256 of what was read of a split (names, texts, labels), however the file was formatted."""
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _existing(file: str | Path) -> Path:
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    return file
