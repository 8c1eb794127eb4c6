"""The record of a claim: every setting, every cell, and the tables made from them."""

import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.records import write_record
from benchmarks.study.tables import markdown, summarise_cells

REGISTER_NAMES = ("asr", "caption", "alt_text", "label", "passive", "paraphrase")
# Per claim: the arm that others are compared with, and its tables: title -> columns.
REFERENCES = {"language": "start", "sorting": "contrastive", "masking": "mask 0", "size": "width 64"}
_PER_REGISTER = [(name, name) for name in (*REGISTER_NAMES, "unseen")]
TABLES = {
    "language": {
        "Zero-shot retrieval, text to video R@1, per register": [(n, f"retrieval/{f}") for n, f in _PER_REGISTER],
        "Zero-shot recognition of the shape, top-1, per register": [(n, f"shape/{f}") for n, f in _PER_REGISTER],
        "Zero-shot recognition of the motion, top-1, per register": [(n, f"motion/{f}") for n, f in _PER_REGISTER],
        "Linear probe, top-1": [("shape", "probe/shape"), ("motion", "probe/motion")],
        "Text embeddings against the start's: cosine": [(n, f"cosine/{f}") for n, f in _PER_REGISTER],
        "Text embeddings against the start's: linear CKA": [(n, f"cka/{f}") for n, f in _PER_REGISTER],
        "Text embeddings against the start's: neighbours kept": [(n, f"neighbours/{f}") for n, f in _PER_REGISTER],
    },
    "sorting": {
        "Time, percent": [
            ("order, A B against B A", "order"),
            ("which came first, probe", "which_first"),
            ("direction, zero-shot", "direction"),
            ("direction, probe", "probe/direction"),
            ("sorter", "sorter"),
        ],
        "Plain retrieval, text to video R@1": [
            ("asr", "retrieval/asr"),
            ("caption", "retrieval/caption"),
            ("two events", "retrieval/ordered"),
        ],
    },
    "masking": {
        "At equal steps": [
            ("ms a step", "milliseconds_per_step"),
            ("MiB for backward", "activation_mib"),
            ("R@1 asr", "equal_steps/retrieval/asr"),
            ("R@1 unseen", "equal_steps/retrieval/unseen"),
            ("probe shape", "equal_steps/probe/shape"),
            ("probe motion", "equal_steps/probe/motion"),
        ],
        "At equal time": [
            ("steps", "num_steps_at_equal_time"),
            ("R@1 asr", "equal_time/retrieval/asr"),
            ("R@1 unseen", "equal_time/retrieval/unseen"),
            ("probe shape", "equal_time/probe/shape"),
            ("probe motion", "equal_time/probe/motion"),
        ],
    },
    "size": {
        "At equal compute": [
            ("start, R@1 asr", "start/retrieval/asr"),
            ("R@1 asr", "retrieval/asr"),
            ("start, R@1 unseen", "start/retrieval/unseen"),
            ("R@1 unseen", "retrieval/unseen"),
            ("probe shape", "probe/shape"),
            ("probe motion", "probe/motion"),
        ],
    },
}
_IN_ZERO_TO_ONE = ("cosine/", "cka/", "neighbours/")


def write_claim(folder: Path, claim: str, study: dict, cells: list[dict], num_cells: int) -> dict:
    """Writes <claim>.json and <claim>.md; returns the record.

    Args:
        cells: those that are done, of `num_cells`.
    """
    summary = summarise_cells(cells, REFERENCES[claim])
    state = "complete" if len(cells) == num_cells else "partial"
    record = {
        "command": f"python -m benchmarks.study --only {claim}",
        "state": state,
        "cells_done": len(cells),
        "cells_planned": num_cells,
        "reference_arm": REFERENCES[claim],
        "summary": summary,
        "study": study,
        "cells": cells,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "transformers", "numpy")},
    }
    write_record(folder / f"{claim}.json", record)
    (folder / f"{claim}.md").write_text(_page(claim, record), encoding="utf-8")
    return record


def _page(claim: str, record: dict) -> str:
    lines = [
        f"Study `{record['study']['name']}`, claim `{claim}`: {record['cells_done']} of {record['cells_planned']} "
        f"cells ({record['state']}). Mean over seeds ± half of the 95 % interval (Student's t).",
    ]
    for title, columns in TABLES[claim].items():
        decimals = 3 if columns[0][1].startswith(_IN_ZERO_TO_ONE) else 1
        lines += [f"**{title}**", markdown(record["summary"], columns, decimals)]
    return "\n\n".join(lines) + "\n"
