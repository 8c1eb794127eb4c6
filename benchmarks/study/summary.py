"""Means over seeds with 95 % intervals (Student's t), differences paired by seed, and Markdown tables of them."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from benchmarks.records import markdown_table

COVERAGE = 0.95


def summarize(values: list[float]) -> dict:
    """`mean`, `half_width` of its 95 % interval (None for one value) and the number of `seeds`."""
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise ValueError("There is nothing to take a mean of.")
    half_width = None
    if len(values) > 1:
        half_width = round(float(stats.t.ppf((1 + COVERAGE) / 2, len(values) - 1) * stats.sem(values)), 4)
    return {"mean": round(float(values.mean()), 4), "half_width": half_width, "seeds": len(values)}


def summarize_differences(own: dict[int, float], reference: dict[int, float]) -> dict | None:
    """As `summarize`, of own minus reference seed by seed, over the seeds that both have; None without any."""
    shared = sorted(own.keys() & reference.keys())
    return summarize([own[seed] - reference[seed] for seed in shared]) if shared else None


def summarize_runs(runs: list[dict], arms: Sequence[str]) -> dict[str, dict]:
    """Per arm and number: mean, interval, and the difference from the first arm, seed by seed.

    Args:
        runs: records of runs.
        arms: their names, in the order wanted; those without a run are left out.
    """
    by_arm: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    for run in runs:
        for name, value in run["metrics"].items():
            by_arm[run["arm"]["name"]].setdefault(name, {})[run["seed"]] = value
    base = by_arm[arms[0]]
    return {
        arm: {
            name: summarize(list(values.values())) | _difference(values, base.get(name), arm == arms[0])
            for name, values in metrics.items()
        }
        for arm, metrics in by_arm.items()
        if metrics
    }


def _difference(values: dict[int, float], base: dict[int, float] | None, is_base: bool) -> dict:
    difference = None if is_base or base is None else summarize_differences(values, base)
    return {} if difference is None else {"difference": difference}


def markdown(summary: dict[str, dict], columns: Sequence[tuple[str, str]], *, differences: bool = False) -> str:
    """A table with a line an arm: mean ± half width of the 95 % interval.

    Args:
        columns: (head, name of the number); arms without it get a dash.
        differences: from the first arm instead, in signs; the first arm has no line.
    """
    rows = []
    for arm, metrics in list(summary.items())[1 if differences else 0 :]:
        shown = [metrics.get(name) for _, name in columns]
        if differences:
            shown = [number and number.get("difference") for number in shown]
        rows.append([arm, *(_show(number, differences) for number in shown)])
    return markdown_table(["", *(head for head, _ in columns)], rows)


def _show(number: dict | None, signed: bool) -> str:
    if number is None:
        return "-"
    half_width = "" if number["half_width"] is None else f" ± {number['half_width']:.1f}"
    return f"{number['mean']:{'+' if signed else ''}.1f}{half_width}"
