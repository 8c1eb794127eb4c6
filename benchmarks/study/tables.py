"""From cells to a comparison's record: every metric's mean over seeds with its interval, and Markdown tables."""

from collections.abc import Sequence

from benchmarks.study.intervals import summarize, summarize_differences


def summarize_cells(cells: list[dict], arms: Sequence[str]) -> dict[str, dict]:
    """Per arm and number: mean, interval, and the difference from the first arm, seed by seed.

    Args:
        cells: records of cells.
        arms: their names, in the order wanted; those without a cell are left out.
    """
    by_arm: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    for cell in cells:
        for name, value in cell["metrics"].items():
            by_arm[cell["arm"]["name"]].setdefault(name, {})[cell["seed"]] = value
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


def markdown(
    summary: dict[str, dict], columns: Sequence[tuple[str, str]], decimals: int = 1, *, differences: bool = False
) -> str:
    """A table with a line an arm: mean ± half width of the 95 % interval.

    Args:
        columns: (head, name of the number); arms without it get a dash.
        differences: from the first arm instead, in signs; the first arm has no line.
    """
    lines = ["| | " + " | ".join(head for head, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for arm, metrics in list(summary.items())[1 if differences else 0 :]:
        shown = [metrics.get(name) for _, name in columns]
        if differences:
            shown = [number and number.get("difference") for number in shown]
        lines.append(f"| {arm} | " + " | ".join(_show(number, decimals, differences) for number in shown) + " |")
    return "\n".join(lines)


def _show(number: dict | None, decimals: int, signed: bool) -> str:
    if number is None:
        return "-"
    half_width = "" if number["half_width"] is None else f" ± {number['half_width']:.{decimals}f}"
    return f"{number['mean']:{'+' if signed else ''}.{decimals}f}{half_width}"
