"""Columns of CSV and tab-separated list files, and the paths written in them; every error names file and line."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    with _open(Path(file)) as (reader, _):
        return list(reader.fieldnames)


def read_table(file: str | Path, column_names: list[str]) -> Table:
    """The named columns of a list file with a header: comma-separated (.csv) or tab-separated (.tsv, .txt), UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a row is broken or has an empty field in one of the columns, there are no
            rows, or the text is not UTF-8.
    """
    file = Path(file)
    columns: dict[str, list[str]] = {name: [] for name in column_names}
    lines = []
    with _open(file) as (reader, delimiter):
        header = reader.fieldnames
        for name in column_names:
            _check_column(file, header, name, delimiter)
        for row in reader:
            if None in row or None in row.values():  # a field without a column, a column without a field
                number = len(header) + len(row.get(None, ())) - sum(value is None for value in row.values())
                raise ValueError(
                    f"{file}, line {reader.line_num}: {number} fields instead of {len(header)} ({', '.join(header)})"
                )
            for name, column in columns.items():
                column.append(row[name].strip())
                if not column[-1]:
                    raise ValueError(f"{file}, line {reader.line_num}: column {name!r} is empty")
            lines.append(reader.line_num)
    if not lines:
        raise ValueError(f"{file} has a header and no rows")
    return Table(file, columns, lines)


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


@contextmanager
def _open(file: Path) -> Iterator[tuple[csv.DictReader, str]]:
    """Open a list file for its rows, with its delimiter; what cannot be parsed is a ValueError."""
    if not file.is_file():
        raise FileNotFoundError(f"there is no list file {file}")
    if file.suffix.lower() not in DELIMITERS:
        raise ValueError(f"{file}: a list file's name ends in one of {', '.join(DELIMITERS)}")
    delimiter = DELIMITERS[file.suffix.lower()]
    with open(file, encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
        try:
            if reader.fieldnames is None:
                raise ValueError(f"{file} is empty")
            reader.fieldnames = [name.strip() for name in reader.fieldnames]
            yield reader, delimiter
        except csv.Error as error:
            raise ValueError(f"{file}, line {reader.reader.line_num}: broken row ({error})") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{file} is not UTF-8 text after line {reader.reader.line_num} ({error})") from error


def _check_column(file: Path, header: list[str], name: str, delimiter: str) -> None:
    if header.count(name) == 1:
        return
    found = f"{file}, line 1: expected a column {name!r} between {delimiter!r}, found {header}"
    if name in header:
        raise ValueError(f"{found}: the name occurs more than once")
    others = [other for other in ("\t", ",", ";", "|") if other != delimiter and any(other in part for part in header)]
    raise ValueError(f"{found}" + (f"; the delimiter looks like {others[0]!r}" if others else ""))
