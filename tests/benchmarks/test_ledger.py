"""The ledger: states of cells, what may fill them, and records that do not fit."""

import json
import shlex

import pytest

from benchmarks.evaluation.paper_tables import COLUMNS, read_rows
from benchmarks.ledger import list_commands, make_ledger
from benchmarks.records import read_records
from benchmarks.run import make_parser


def make_record(**changes):
    counts = {"in_annotations": 1000, "expected": 1000, "found": 1000, "broken": 0, "evaluated": 1000}
    own = {"R@1": 0.362, "R@5": 0.6, "R@10": 0.7, "median_rank": 3.0}
    metrics = {name: {"value": value, "interval_95": [value, value]} for name, value in own.items()}
    both = {"text_to_video": metrics, "video_to_text": metrics}
    dual = metrics | {"R@1": {"value": 0.38, "interval_95": [0.35, 0.41]}}
    record = {
        "format_version": 2,
        "protocol": "retrieval",
        "data": "msrvtt",
        "paper_row": "TVTSv2 B/16",
        "state": "complete",
        "allow_missing": False,
        "videos": {"test": counts | changes.pop("counts", {})},
        "metrics": both,
        "dual_softmax": {"metrics": {"text_to_video": dual}},
        "model": {"name": "mine"},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return record | changes


def ledger_of(tmp_path, *records):
    for number, record in enumerate(records):
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    return make_ledger(read_records([tmp_path]))


def cell(ledger, row, column):
    return next(line for line in ledger.splitlines() if line.startswith(f"| {row} | {column} |"))


def test_without_records_every_cell_is_not_run(tmp_path):
    ledger = ledger_of(tmp_path)
    paper = "35.9 / 61.2 / 71.3 / 3.0"
    assert cell(ledger, "TVTSv2 B/16", "MSR-VTT") == f"| TVTSv2 B/16 | MSR-VTT | {paper} | - | - | not run |  |  |"
    assert "| TVTSv2 H/14, dual softmax | LSMDC | 20.0 / 37.8 / 48.6 / 11.0 | - |" in ledger
    assert "| InternVideo† | MSR-VTT | 40.0 / 65.3 / 74.1 / 2.0 |" in ledger
    assert "| ImageBind‡ | MSR-VTT | 36.8 / 61.8 / 70.0 / - |" in ledger
    assert "| SVT | K400 | 68.1 |" in ledger and "| TVTSv2 B/16 | SSV2 | - |" in ledger
    assert ledger.count("| not run |") == ledger.count("| - | - | not run |") > 200


def test_every_number_of_the_paper_is_in_the_ledger(tmp_path):
    ledger = ledger_of(tmp_path)
    for row in read_rows():
        for key, numbers in row.numbers.items():
            title = next(column.title for column in COLUMNS if (column.table, column.key) == (row.table, key))
            lines = [
                line for line in ledger.splitlines() if line.startswith(f"| {row.title}") and f"| {title} |" in line
            ]
            assert any(all(f"{value:.1f}" in line for value in numbers.values()) for line in lines), (row.title, key)
    assert len([row for row in read_rows() if row.table == 2 and row.numbers]) == 23
    assert len([row for row in read_rows() if row.table == 3 and row.numbers]) == 18
    assert len([row for row in read_rows() if row.table == 4 and row.numbers]) == 19


def test_a_model_has_one_title_in_all_tables():
    titles = {(row.title, row.table) for row in read_rows() if row.numbers and not row.dual_softmax}
    for title in ("TVTSv2 B/16", "TVTSv2 H/14", "CLIP B/16"):
        assert {(title, table) for table in (2, 3, 4)} <= titles
    assert ("CLIP B/32", 2) in titles and ("X-CLIP B/16", 3) in titles and ("VideoMAE-B", 4) in titles


def test_a_complete_run(tmp_path):
    line = cell(ledger_of(tmp_path, make_record()), "TVTSv2 B/16", "MSR-VTT")
    paper, ours = "35.9 / 61.2 / 71.3 / 3.0", "36.2 / 60.0 / 70.0 / 3.0"
    assert line == f"| TVTSv2 B/16 | MSR-VTT | {paper} | {ours} | +0.3 | run | 1000 of 1000 | 0.json |"
    line = cell(ledger_of(tmp_path, make_record()), "TVTSv2 B/16, dual softmax", "MSR-VTT")
    assert "| 37.8 / 62.9 / 72.4 / 3.0 | 38.0 / 60.0 / 70.0 / 3.0 | +0.2 | run |" in line


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": {"evaluated": 999, "found": 999}, "state": "partial"},
        {"counts": dict.fromkeys(("in_annotations", "expected", "found", "evaluated"), 64)},  # a smaller split
        {"allow_missing": True},
    ],
)
def test_partial_runs_never_look_complete(tmp_path, changes):
    line = cell(ledger_of(tmp_path, make_record(**changes)), "TVTSv2 B/16", "MSR-VTT")
    assert "| partial |" in line and "| run |" not in line


def test_a_state_that_its_own_counts_deny_is_refused(tmp_path):
    with pytest.raises(ValueError, match="says 'complete', but its counts of videos say 'partial'"):
        ledger_of(tmp_path, make_record(counts={"evaluated": 999}))


def test_the_newest_complete_run_fills_the_cell(tmp_path):
    metrics = {name: {"value": 0.01, "interval_95": [0, 0.02]} for name in ("R@1", "R@5", "R@10", "median_rank")}
    partial = make_record(
        counts={"evaluated": 10}, state="partial", finished="2026-03-01", metrics={"text_to_video": metrics}
    )
    older = make_record(metrics={"text_to_video": metrics}, finished="2025-01-01")
    ledger = ledger_of(tmp_path, partial, make_record(), older)
    assert cell(ledger, "TVTSv2 B/16", "MSR-VTT").endswith("| run | 1000 of 1000 | 1.json |")


def test_runs_of_no_row_are_listed_apart(tmp_path):
    ledger = ledger_of(tmp_path, make_record(paper_row=None, model={"name": "a|b"}))
    assert "| a\\|b | retrieval | msrvtt | R@1 36.2 | run | 1000 of 1000 | 0.json |" in ledger
    assert "| run |" not in ledger.split("## Other runs")[0]


def test_records_that_do_not_fit(tmp_path):
    (tmp_path / "speed.json").write_text('{"something": "else"}')
    assert read_records([tmp_path]) == []
    with pytest.raises(ValueError, match="format 7, and 2 is read"):
        ledger_of(tmp_path, make_record(format_version=7))
    (tmp_path / "0.json").write_text("{")
    with pytest.raises(ValueError, match=r"0\.json is no JSON"):
        read_records([tmp_path])


def test_every_cell_has_its_one_command_that_the_program_takes():
    commands = [line.strip() for line in list_commands().splitlines() if line.startswith("    ")]
    assert len(commands) == len(set(commands)) > 150
    for command in commands:
        arguments = make_parser().parse_args(shlex.split(command)[3:])
        assert arguments.paper_row and (
            arguments.data not in ("k400", "ssv2") or "linear" not in command or arguments.train_annotations
        )
