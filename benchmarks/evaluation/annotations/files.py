"""Annotation files as published: rows and JSON with errors that name file and line, and the checksum of a split."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, dict[str, str]]  # where it stands, for messages, and its fields


def read_lines(file: str | Path) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, stripped, each with its place for messages. UTF-8, a byte order mark is skipped."""
    file = _existing(file)
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if line.strip():
                yield f"{file.name}, line {number}", line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); convert it, for example with iconv.") from error


def read_table(file: str | Path, columns: list[str], *, delimiter: str = ",", has_header: bool = True) -> Iterator[Row]:
    """Rows of a delimited file with the named columns.

    Args:
        columns: Names that the header must have; without a header, the names of all columns in order.
        has_header: The first row names the columns. Files without are taken literally: quotes mean nothing in them.

    Raises:
        ValueError: a column is missing, a row has another number of fields, or a field of `columns` is empty.
    """
    file = _existing(file)
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            quoting = csv.QUOTE_MINIMAL if has_header else csv.QUOTE_NONE
            reader = csv.reader(stream, delimiter=delimiter, quoting=quoting)
            header = next(reader, None) if has_header else columns
            missing = [name for name in columns if name not in (header or [])]
            if missing:
                raise ValueError(f"{file} has no column {missing[0]!r}; its header is {header}, needed are {columns}.")
            for fields in reader:
                if fields:
                    place = f"{file.name}, line {reader.line_num}"
                    yield place, _checked_fields(place, fields, header, columns)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text ({error}); convert it, for example with iconv.") from error
    except csv.Error as error:
        raise ValueError(f"{file} is broken ({error}).") from error


def _checked_fields(place: str, fields: list[str], header: list[str], columns: list[str]) -> dict[str, str]:
    if len(fields) != len(header):
        raise ValueError(f"{place}: {len(fields)} fields where there should be {len(header)}: {header}.")
    row = {name: field.strip() for name, field in zip(header, fields, strict=True)}
    for name in columns:
        if not row[name]:
            raise ValueError(f"{place}: the field {name!r} is empty.")
    return row


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
