"""The ledger: states of cells, what may fill them, and records that do not fit."""

import json
import shlex

import pytest

from benchmarks.ledger import list_commands, make_ledger
from benchmarks.records import read_records
from benchmarks.run import make_parser


def make_record(**changes):
    counts = {"in_annotations": 1000, "expected": 1000, "found": 1000, "broken": 0, "evaluated": 1000}
    figure = {"value": 0.362, "interval_95": [0.33, 0.39]}
    both = {"text_to_video": {"R@1": figure}, "video_to_text": {"R@1": figure}}
    record = {
        "format_version": 2,
        "protocol": "retrieval",
        "data": "msrvtt",
        "paper_row": "TVTSv2 B/16",
        "state": "complete",
        "allow_missing": False,
        "videos": {"test": counts | changes.pop("counts", {})},
        "metrics": both,
        "dual_softmax": {"metrics": {"text_to_video": {"R@1": {"value": 0.38, "interval_95": [0.35, 0.41]}}}},
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
    assert cell(ledger, "TVTSv2 B/16", "MSR-VTT") == "| TVTSv2 B/16 | MSR-VTT | 35.9 (37.8) | - | - | not run |  |  |"
    # 11 numbers of CLIP and TVTSv2 sizes, ImageBind and InternVideo in the paper's tables
    assert ledger.count("| not run |") == 10 + 3 + 10 + 10 + 2 + 3


def test_a_complete_run(tmp_path):
    line = cell(ledger_of(tmp_path, make_record()), "TVTSv2 B/16", "MSR-VTT")
    assert line == "| TVTSv2 B/16 | MSR-VTT | 35.9 (37.8) | 36.2 (38.0) | +0.3 (+0.2) | run | 1000 of 1000 | 0.json |"


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
    figure = {"R@1": {"value": 0.01, "interval_95": [0, 0.02]}}
    partial = make_record(
        counts={"evaluated": 10}, state="partial", finished="2026-03-01", metrics={"text_to_video": figure}
    )
    older = make_record(metrics={"text_to_video": figure}, finished="2025-01-01")
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
    assert len(commands) == len(set(commands)) == 10 + 3 + 10 + 10 + 2 + 3
    for command in commands:
        arguments = make_parser().parse_args(shlex.split(command)[3:])
        assert arguments.paper_row and (
            arguments.data != "k400" or "linear" not in command or arguments.train_annotations
        )
