"""Plots of a comparison: one panel per table, one mark per arm, whiskers for the 95 % interval over seeds."""

from pathlib import Path

from benchmarks.study.comparisons import COMPARISONS

COLORS = ("#4a5568", "#2f6fde", "#c0392b", "#1b7f4d", "#b7791f", "#6b46c1", "#2c7a7b", "#97266d")
PANEL_INCHES = (8.0, 2.3)
WIDTH_OF_ARMS = 0.6  # of the distance between two columns


def draw(name: str, summary: dict[str, dict], path: Path) -> None:
    """Writes a PNG.

    Args:
        summary: as `tables.summarize_cells` returns it.
    """
    from matplotlib.figure import Figure

    tables = COMPARISONS[name].tables
    picture = Figure(figsize=(PANEL_INCHES[0], PANEL_INCHES[1] * len(tables) + 0.4), layout="constrained")
    panels = picture.subplots(len(tables), 1, squeeze=False)[:, 0]
    for axes, (title, columns) in zip(panels, tables.items(), strict=True):
        for number, (arm, metrics) in enumerate(summary.items()):
            offset = WIDTH_OF_ARMS * ((number + 0.5) / len(summary) - 0.5)
            shown = [(place + offset, metrics[name]) for place, (_, name) in enumerate(columns) if name in metrics]
            axes.errorbar(
                [place for place, _ in shown],
                [value["mean"] for _, value in shown],
                yerr=[value["half_width"] or 0.0 for _, value in shown],
                fmt="o",
                markersize=4,
                linewidth=1,
                color=COLORS[number % len(COLORS)],
                label=arm,
            )
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(columns)), [head for head, _ in columns], fontsize=8)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
    picture.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    picture.savefig(path, dpi=90)
