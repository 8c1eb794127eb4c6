"""The paper's tables beside what was measured here, each cell with its state.

    python -m benchmarks.ledger [--records FOLDER …]
    python -m benchmarks.ledger --commands          # the one command of every cell

Per cell: the paper's numbers, ours, the difference of R@1 or top-1, and the state:

    not run    no record names this row and column
    run        every video of the published split was evaluated
    partial    some were not: missing, broken, left out by --max_videos, or the split is smaller than published

A run fills a cell only if it names the row (`--paper_row`). Runs that name none are listed below the tables.
"""

import argparse
import shlex
from pathlib import Path

from benchmarks.evaluation.paper_tables import (
    COLUMNS,
    MODELS,
    MORE_MODALITIES,
    RETRIEVAL_METRICS,
    SINGLE_STREAM,
    TABLES,
    Column,
    Row,
    is_cell,
    read_rows,
)
from benchmarks.records import COMPLETE, markdown_table, read_records, top_metric
from training.runtime.command_errors import OneLineParser, one_line_errors

DEFAULT_FOLDERS = (Path(__file__).parent / "records", Path("outputs/benchmarks"))
NOT_RUN, RUN, PARTIAL = "not run", "run", "partial"
_HEADER = ("model", "data", "paper", "ours", "difference", "state", "videos", "record")
LEGEND = """\
Numbers in percent; retrieval: R@1 / R@5 / R@10 / median rank, text to video. "paper" is what arXiv 2305.14173 prints,
most of it cited from others. † single stream: each pair of video and text goes through the model together, which no
index can serve. ‡ uses more modalities, such as audio. Rows without numbers are newer than the paper, or not
in that table.
"""
_SIGNS = {SINGLE_STREAM: "†", MORE_MODALITIES: "‡"}


# By data: annotations as published, and what else a command names. Paths are relative to where it is run.
_ANNOTATIONS = {
    "msrvtt": "MSRVTT_JSFUSION_test.csv",
    "didemo": "test_data.json",
    "lsmdc": "LSMDC16_challenge_1000_publictect.csv",
    "hmdb51": "testTrainMulti_7030_splits",
    "ucf101": "ucfTrainTestlist",
    "k400": "val.csv",
    "ssv2": "something-something-v2-validation.json",
    "ssv2_mc": "val.jsonl",
}
_TRAIN_ANNOTATIONS = {"k400": "train.csv", "ssv2": "something-something-v2-train.json"}


def cell_command(row: Row, column: Column) -> str:
    """Return the command whose record fills a cell."""
    model = MODELS[row.title].name if row.title in MODELS else "EMBEDDINGS.safetensors"
    words = ["python", "-m", "benchmarks.run", column.protocol, "--data", column.data]
    words += ["--annotations", _ANNOTATIONS[column.data], "--videos", "videos", "--model", model]
    if column.protocol == "linear_probe" and column.data in _TRAIN_ANNOTATIONS:
        words += ["--train_annotations", _TRAIN_ANNOTATIONS[column.data]]
    return shlex.join([*words, "--paper_row", row.title])


def list_commands() -> str:
    """Return the command of every cell, table by table, as Markdown; one for plain and dual softmax."""
    lines = []
    for number, table in TABLES.items():
        cells = (cell_command(row, column) for row, column in list_cells(number))
        lines += [f"## {table}", "", *(f"    {command}" for command in dict.fromkeys(cells)), ""]
    return "\n".join(lines).rstrip() + "\n"


def list_cells(table: int) -> list[tuple[Row, Column]]:
    """Return the cells of a table, row by row."""
    return [
        (row, column) for row in read_rows() for column in COLUMNS if column.table == table and is_cell(row, column)
    ]


def cell_state(record: dict, column: Column) -> str:
    """`run` or `partial`; never `run` for fewer videos than were published."""
    counts = record["videos"]["test"]
    whole = record["state"] == COMPLETE and counts["evaluated"] >= column.num_videos
    return RUN if whole and not record["allow_missing"] else PARTIAL


def choose_record(records: list[dict], row: Row, column: Column) -> dict | None:
    """The newest record of a cell, complete ones before partial ones."""
    wanted = (row.title, column.protocol, column.data)
    own = [record for record in records if (record.get("paper_row"), record["protocol"], record["data"]) == wanted]
    return max(own, key=lambda record: (cell_state(record, column) == RUN, record["finished"]), default=None)


def make_ledger(records: list[dict]) -> str:
    """Return the tables as Markdown."""
    lines = [LEGEND]
    for number, table in TABLES.items():
        rows = [_cell_row(records, row, column) for row, column in list_cells(number)]
        lines += [f"## {table}", "", markdown_table(_HEADER, rows), ""]
    others = [record for record in records if not record.get("paper_row")]
    if others:
        head = ("model", "protocol", "data", "metric", "state", "videos", "record")
        lines += ["## Other runs", "", markdown_table(head, map(_other_row, others))]
    return "\n".join(lines).rstrip() + "\n"


def _cell_row(records: list[dict], row: Row, column: Column) -> tuple[str, ...]:
    record = choose_record(records, row, column)
    metrics = RETRIEVAL_METRICS if column.protocol == "retrieval" else ("top_1",)
    paper = [row.numbers.get(column.key, {}).get(metric) for metric in metrics]
    ours = [None if record is None else _own_number(record, row, metric) for metric in metrics]
    differences = [
        None if None in pair else pair[0] - pair[1] for pair in zip(ours[:1], paper[:1], strict=True)
    ]  # of R@1 or top-1
    state = NOT_RUN if record is None else cell_state(record, column)
    title = row.title + "".join(_SIGNS[mark] for mark in row.marks) + (", dual softmax" if row.dual_softmax else "")
    fields = (title, column.title, _numbers(paper), _numbers(ours), _numbers(differences, "+.1f"), state)
    return (*fields, _videos(record), record["file"] if record else "")


def _own_number(record: dict, row: Row, metric: str) -> float:
    """Return a record's number in the paper's unit: percent, or a rank."""
    if row.dual_softmax:
        value = record["dual_softmax"]["metrics"]["text_to_video"][metric]["value"]
    else:
        value = top_metric(record, metric)
    return value if "rank" in metric else 100 * value


def _other_row(record: dict) -> tuple[str, ...]:
    name = "R@1" if record["protocol"] == "retrieval" else "top_1"
    figure = f"{name} {100 * top_metric(record, name):.1f}"
    state = RUN if record["state"] == COMPLETE else PARTIAL
    fields = (record["model"]["name"], record["protocol"], record["data"], figure, state)
    return (*fields, _videos(record), record["file"])


def _videos(record: dict | None) -> str:
    if record is None:
        return ""
    counts = record["videos"]["test"]
    allowed = ", missing allowed" if record["allow_missing"] else ""
    return f"{counts['evaluated']} of {counts['in_annotations']}{allowed}"


def _numbers(values: list[float | None], pattern: str = ".1f") -> str:
    shown = ["-" if value is None else format(value, pattern) for value in values]
    return "-" if set(shown) == {"-"} else " / ".join(shown)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--records", type=Path, nargs="+", help="folders of records (those shipped, outputs/benchmarks)"
    )
    parser.add_argument("--commands", action="store_true", help="print the one command of every cell instead")
    return parser


@one_line_errors(OSError, ValueError)
def main() -> None:
    """Prints the ledger."""
    arguments = make_parser().parse_args()
    if arguments.commands:
        print(list_commands(), end="")
        return
    folders = arguments.records
    if folders is None:
        folders = [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]
    absent = [folder for folder in folders if not folder.is_dir()]
    if absent:
        raise FileNotFoundError(f"there is no folder {absent[0]}")
    print(make_ledger(read_records(folders)), end="")


if __name__ == "__main__":
    main()
