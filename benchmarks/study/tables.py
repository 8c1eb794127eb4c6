"""From cells to a claim's record: every figure's mean over seeds with its interval, and Markdown tables of them."""

from collections.abc import Sequence

from benchmarks.study.intervals import summarise, summarise_differences


def summarise_cells(cells: list[dict], reference: str) -> dict[str, dict]:
    """Per arm and figure: mean, interval, and the difference from the reference arm, seed by seed.

    Args:
        cells: records of cells.
        reference: name of the arm the others are compared with; without it there are no differences.
    """
    by_arm: dict[str, dict[str, dict[int, float]]] = {}
    for cell in cells:
        figures = by_arm.setdefault(cell["arm"]["name"], {})
        for name, value in cell["figures"].items():
            figures.setdefault(name, {})[cell["seed"]] = value
    base = by_arm.get(reference, {})
    return {
        arm: {
            name: summarise(list(values.values())) | _difference(arm, name, values, reference, base)
            for name, values in figures.items()
        }
        for arm, figures in by_arm.items()
    }


def _difference(arm: str, name: str, values: dict[int, float], reference: str, base: dict) -> dict:
    if arm == reference or name not in base:
        return {}
    return {"difference": summarise_differences(values, base[name])}


def markdown(summary: dict[str, dict], columns: Sequence[tuple[str, str]], decimals: int = 1) -> str:
    """A table with a line an arm: mean ± half width of the 95 % interval.

    Args:
        columns: (head, name of the figure); arms without it get a dash.
    """
    lines = ["| | " + " | ".join(head for head, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for arm, figures in summary.items():
        cells = [_show(figures.get(name), decimals) for _, name in columns]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _show(figure: dict | None, decimals: int) -> str:
    if figure is None:
        return "-"
    half_width = "" if figure["half_width"] is None else f" ± {figure['half_width']:.{decimals}f}"
    return f"{figure['mean']:.{decimals}f}{half_width}"
