"""The record of a comparison: every setting, every cell, and the tables and the picture made from them."""

import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.records import COMPLETE, PARTIAL, write_record
from benchmarks.study.comparisons import COMPARISONS
from benchmarks.study.plots import draw
from benchmarks.study.tables import markdown, summarize_cells


def write_comparison(
    folder: Path, name: str, study: dict, arms: list[str], cells: list[dict], num_planned: int
) -> dict:
    """Writes <name>.json, <name>.md and <name>.png; returns the record.

    Args:
        study: all settings.
        arms: in order; the first is the one that others are compared with.
        cells: those that are done, of `num_planned`.
    """
    record = {
        "command": f"python -m benchmarks.study --only {name}",
        "state": COMPLETE if len(cells) == num_planned else PARTIAL,
        "cells_done": len(cells),
        "cells_planned": num_planned,
        "intervals": "mean over seeds, half width of the 95 % interval by Student's t",
        "reference_arm": arms[0],
        "summary": summarize_cells(cells, arms),
        "study": study,
        "cells": cells,
        "versions": {"python": platform.python_version()}
        | {library: version(library) for library in ("torch", "transformers", "numpy")},
    }
    write_record(folder / f"{name}.json", record)
    (folder / f"{name}.md").write_text(_page(name, record), encoding="utf-8")
    draw(name, record["summary"], folder / f"{name}.png")
    return record


def _page(name: str, record: dict) -> str:
    lines = [
        f"`{record['command']}`: {record['cells_done']} of {record['cells_planned']} cells ({record['state']}). "
        "Mean over seeds ± half of the 95 % interval (Student's t)."
    ]
    for title, columns in COMPARISONS[name].tables.items():
        lines += [f"**{title}**", markdown(record["summary"], columns, COMPARISONS[name].decimals)]
    lines += [f"Differences from *{record['reference_arm']}*, paired by seed, ± half of their 95 % interval:"]
    for title, columns in COMPARISONS[name].tables.items():
        lines += [f"**{title}**", markdown(record["summary"], columns, COMPARISONS[name].decimals, differences=True)]
    return "\n\n".join(lines) + "\n"
