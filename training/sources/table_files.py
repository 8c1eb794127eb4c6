"""Columns of CSV and tab-separated list files, and the paths written in them; every error names file and line."""

import csv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


@dataclass(frozen=True)
class Table:
    """Chosen columns of a list file."""

    file: Path
    columns: dict[str, list[str]]
    lines: list[int]
    """The line of the file that each row ends on, from 1."""

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, index: int) -> str:
        """Row `index` as error messages call it."""
        return f"{self.file}, line {self.lines[index]}"


def read_header(file: str | Path) -> list[str]:
    """The column names of a list file."""
    file = Path(file)
    with _open(file) as stream:
        return _read_header(file, csv.reader(stream, delimiter=_delimiter(file), strict=True))


def read_table(file: str | Path, column_names: list[str]) -> Table:
    """The named columns of a list file with a header: comma-separated (.csv) or tab-separated (.tsv, .txt), UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a row is broken or has an empty field in one of the columns, there are no
            rows, or the text is not UTF-8.
    """
    file = Path(file)
    with _open(file) as stream:
        reader = csv.reader(stream, delimiter=_delimiter(file), strict=True)
        try:
            header = _read_header(file, reader)
            places = [_find_column(file, header, name) for name in column_names]
            columns: list[list[str]] = [[] for _ in column_names]
            lines = []
            for row in reader:
                if not row:
                    continue
                _check_row(file, reader.line_num, row, header, column_names, places)
                for column, place in zip(columns, places, strict=True):
                    column.append(row[place].strip())
                lines.append(reader.line_num)
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.line_num}: broken row ({error})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8 text after line {reader.line_num} ({error})") from error
    if not lines:
        raise ValueError(f"{file} has a header and no rows")
    return Table(file, dict(zip(column_names, columns, strict=True)), lines)


def resolve_inside(root: Path, relative: str, place: str) -> Path:
    """`root / relative`, once it is sure that this lies in `root`, links followed.

    Args:
        root: a folder, already resolved.
        relative: a path from a list file, with slashes.
        place: what an error calls the origin of the path.

    Raises:
        ValueError: the path is absolute, leads out of `root`, or goes in circles.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative or not path.parts:
        raise ValueError(f"{place}: {relative!r} is not a path inside {root}")
    try:
        resolved = (root / path).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            resolved.stat()  # from Python 3.13 on it is this that fails for links in circles
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{place}: {relative!r} cannot be followed ({error})") from error
    if not resolved.is_relative_to(root):
        raise ValueError(f"{place}: {relative!r} leads out of {root}, to {resolved}; make that folder the root")
    return resolved


def check_first_video(table: Table, video: Path, root: Path) -> None:
    """Raise `FileNotFoundError` where the first video of a table is missing: a wrong root fails once, at the start."""
    if not video.is_file():
        raise FileNotFoundError(f"{table.place(0)}: there is no video {video}; is {root} the right folder?")


def _open(file: Path):
    if not file.is_file():
        raise FileNotFoundError(f"there is no list file {file}")
    return open(file, encoding="utf-8-sig", newline="")


def _delimiter(file: Path) -> str:
    if file.suffix.lower() not in DELIMITERS:
        raise ValueError(f"{file}: a list file's name ends in one of {', '.join(DELIMITERS)}")
    return DELIMITERS[file.suffix.lower()]


def _read_header(file: Path, reader) -> list[str]:
    try:
        header = next(reader)
    except StopIteration:
        raise ValueError(f"{file} is empty") from None
    return [name.strip() for name in header]


def _find_column(file: Path, header: list[str], name: str) -> int:
    if header.count(name) == 1:
        return header.index(name)
    delimiter = _delimiter(file)
    found = f"{file}, line 1: expected a column {name!r} between {delimiter!r}, found {header}"
    if name in header:
        raise ValueError(f"{found}: the name occurs more than once")
    others = [other for other in ("\t", ",", ";", "|") if other != delimiter and any(other in part for part in header)]
    raise ValueError(f"{found}" + (f"; the delimiter looks like {others[0]!r}" if others else ""))


def _check_row(
    file: Path, line: int, row: list[str], header: list[str], column_names: list[str], places: list[int]
) -> None:
    if len(row) != len(header):
        raise ValueError(f"{file}, line {line}: {len(row)} fields instead of {len(header)} ({', '.join(header)})")
    for name, place in zip(column_names, places, strict=True):
        if not row[place].strip():
            raise ValueError(f"{file}, line {line}: column {name!r} is empty")
