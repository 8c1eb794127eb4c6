"""A claim's tables as a picture: a panel a table, a mark an arm, whiskers the 95 % interval over seeds."""

from pathlib import Path

from benchmarks.study.records import TABLES

COLORS = ("#2f6fde", "#c0392b", "#1b7f4d", "#b7791f", "#6b46c1", "#2c7a7b", "#97266d", "#4a5568")
PANEL_INCHES = (9.0, 2.6)
WIDTH_OF_ARMS = 0.6  # of the distance between two columns


def draw(claim: str, summary: dict[str, dict], folder: Path) -> None:
    """Writes <claim>.png.

    Args:
        summary: as `tables.summarise_cells` returns it.
    """
    from matplotlib.figure import Figure

    tables = TABLES[claim]
    figure = Figure(figsize=(PANEL_INCHES[0], PANEL_INCHES[1] * len(tables)), layout="constrained")
    for axes, (title, columns) in zip(
        figure.subplots(len(tables), 1, squeeze=False)[:, 0], tables.items(), strict=True
    ):
        for number, (arm, figures) in enumerate(summary.items()):
            offset = WIDTH_OF_ARMS * ((number + 0.5) / len(summary) - 0.5)
            points = [(place + offset, figures[name]) for place, (_, name) in enumerate(columns) if name in figures]
            axes.errorbar(
                [place for place, _ in points],
                [value["mean"] for _, value in points],
                yerr=[value["half_width"] or 0.0 for _, value in points],
                fmt="o",
                markersize=4,
                linewidth=1,
                color=COLORS[number % len(COLORS)],
                label=arm,
            )
        axes.set_title(title, loc="left", fontsize=10)
        axes.set_xticks(range(len(columns)), [head for head, _ in columns], fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(folder / f"{claim}.png", dpi=110)
