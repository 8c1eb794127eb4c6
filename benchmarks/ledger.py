"""The paper's tables beside what was measured here, each cell with its state.

    python -m benchmarks.ledger [--records FOLDER …]
    python -m benchmarks.ledger --commands          # the one command of every cell

Per cell: the paper's number, ours, the difference, and the state:

    not run    no record names this row and column
    run        every video of the published split was evaluated
    partial    some were not: missing, broken, left out by --max_videos, or the split is smaller than published

A run fills a cell only if it names the row (`--paper_row`). Runs that name none are listed below the tables.
"""

import argparse
import shlex
from pathlib import Path

from benchmarks.evaluation.paper_tables import COLUMNS, ROWS, Column, Row
from benchmarks.records import COMPLETE, read_records, top_metric

DEFAULT_FOLDERS = (Path(__file__).parent / "records", Path("outputs/benchmarks"))
NOT_RUN, RUN, PARTIAL = "not run", "run", "partial"
_HEADER = ("model", "data", "paper", "ours", "difference", "state", "videos", "record")


# By data: annotations as published, and what else a command names. Paths are relative to where it is run.
_ANNOTATIONS = {
    "msrvtt": "MSRVTT_JSFUSION_test.csv",
    "didemo": "test_data.json",
    "lsmdc": "LSMDC16_challenge_1000_publictect.csv",
    "hmdb51": "testTrainMulti_7030_splits",
    "ucf101": "ucfTrainTestlist",
    "k400": "val.csv",
    "ssv2_mc": "val.jsonl",
}
_MODELS = {
    "clip": "openai/clip-vit-base-patch16",
    "tvtsv2": "MODEL_FOLDER",
    "embedding file": "EMBEDDINGS.safetensors",
}


def cell_command(row: Row, column: Column) -> str:
    """The command whose record fills a cell."""
    words = ["python", "-m", "benchmarks.run", column.protocol, "--data", column.data]
    words += ["--annotations", _ANNOTATIONS[column.data], "--videos", "videos", "--model", _MODELS[row.family]]
    if column.protocol == "linear_probe" and column.data == "k400":
        words += ["--train_annotations", "train.csv"]
    return shlex.join([*words, "--paper_row", row.title])


def list_commands() -> str:
    """The command of every cell that the paper fills, table by table, as Markdown."""
    lines = []
    for table in dict.fromkeys(column.table for column in COLUMNS):
        cells = [
            cell_command(row, column)
            for row in ROWS
            for column, number in zip(COLUMNS, row.numbers, strict=True)
            if column.table == table and number is not None
        ]
        lines += [f"## {table}", "", *(f"    {command}" for command in cells), ""]
    return "\n".join(lines).rstrip() + "\n"


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
    """The tables as Markdown."""
    lines = []
    for table in dict.fromkeys(column.table for column in COLUMNS):
        lines += [f"## {table}", "", *_table_head(_HEADER)]
        for row in ROWS:
            for number, column in enumerate(COLUMNS):
                if column.table == table and row.numbers[number] is not None:
                    lines.append(_cell_line(records, row, column, row.numbers[number]))
        lines.append("")
    others = [record for record in records if not record.get("paper_row")]
    if others:
        lines += [
            "## Other runs",
            "",
            *_table_head(("model", "protocol", "data", "figure", "state", "videos", "record")),
        ]
        lines += [_other_line(record) for record in others]
    return "\n".join(lines).rstrip() + "\n"


def _cell_line(records: list[dict], row: Row, column: Column, paper: float | tuple) -> str:
    record = choose_record(records, row, column)
    with_dual_softmax = isinstance(paper, tuple)
    paper = paper if with_dual_softmax else (paper, None)
    ours: tuple = (None, None)
    if record is not None:
        plain = 100 * top_metric(record, "R@1" if with_dual_softmax else "top_1")
        both = with_dual_softmax and 100 * record["dual_softmax"]["metrics"]["text_to_video"]["R@1"]["value"]
        ours = (plain, both if with_dual_softmax else None)
    differences = [None if None in pair else pair[0] - pair[1] for pair in zip(ours, paper, strict=True)]
    state = NOT_RUN if record is None else cell_state(record, column)
    fields = (row.title, column.title, _pair(paper), _pair(ours), _pair(differences, "+.1f"), state)
    return _line((*fields, _videos(record), record["file"] if record else ""))


def _other_line(record: dict) -> str:
    name = "R@1" if record["protocol"] == "retrieval" else "top_1"
    figure = f"{name} {100 * top_metric(record, name):.1f}"
    state = RUN if record["state"] == COMPLETE else PARTIAL
    fields = (record["model"]["name"], record["protocol"], record["data"], figure, state)
    return _line((*fields, _videos(record), record["file"]))


def _videos(record: dict | None) -> str:
    if record is None:
        return ""
    counts = record["videos"]["test"]
    allowed = ", missing allowed" if record["allow_missing"] else ""
    return f"{counts['evaluated']} of {counts['in_annotations']}{allowed}"


def _pair(values, pattern: str = ".1f") -> str:
    plain, reweighted = (None if value is None else format(value, pattern) for value in values)
    return (plain or "-") + (f" ({reweighted})" if reweighted else "")


def _table_head(names: tuple[str, ...]) -> list[str]:
    return [_line(names), "|" + " --- |" * len(names)]


def _line(fields: tuple) -> str:
    return "| " + " | ".join(str(field).replace("|", "\\|").replace("\n", " ") for field in fields) + " |"


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--records", type=Path, nargs="+", help="folders of records (those shipped, outputs/benchmarks)"
    )
    parser.add_argument("--commands", action="store_true", help="print the one command of every cell instead")
    return parser


def main() -> None:
    """Prints the ledger."""
    parser = make_parser()
    arguments = parser.parse_args()
    if arguments.commands:
        print(list_commands(), end="")
        return
    folders = arguments.records
    if folders is None:
        folders = [folder for folder in DEFAULT_FOLDERS if folder.is_dir()]
    absent = [folder for folder in folders if not folder.is_dir()]
    if absent:
        parser.error(f"there is no folder {absent[0]}")
    print(make_ledger(read_records(folders)), end="")


if __name__ == "__main__":
    main()
