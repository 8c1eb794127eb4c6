"""The record of a comparison: every setting, every run, and the tables and the picture made from them."""

from pathlib import Path

from benchmarks.records import COMPLETE, PARTIAL, make_record, write_record
from benchmarks.study.comparisons import COMPARISONS
from benchmarks.study.summary import markdown, summarize_runs

COLORS = ("#4a5568", "#2f6fde", "#c0392b", "#1b7f4d", "#b7791f", "#6b46c1", "#2c7a7b", "#97266d")
PANEL_INCHES = (8.0, 2.3)
WIDTH_OF_ARMS = 0.6  # of the distance between two columns


def write_comparison(folder: Path, name: str, study: dict, arms: list[str], runs: list[dict], num_planned: int) -> dict:
    """Writes <name>.json, <name>.md and <name>.png; returns the record.

    Args:
        study: all settings.
        arms: in order; the first is the one that others are compared with.
        runs: those that are done, of `num_planned`.
    """
    record = make_record(
        "benchmarks.study",
        arguments=["--only", name],
        state=COMPLETE if len(runs) == num_planned else PARTIAL,
        runs_done=len(runs),
        runs_planned=num_planned,
        intervals="mean over seeds, half width of the 95 % interval by Student's t",
        reference_arm=arms[0],
        summary=summarize_runs(runs, arms),
        study=study,
        runs=runs,
    )
    write_record(folder / f"{name}.json", record)
    (folder / f"{name}.md").write_text(_page(name, record), encoding="utf-8")
    draw(name, record["summary"], folder / f"{name}.png")
    return record


def _page(name: str, record: dict) -> str:
    lines = [
        f"`{record['command']}`: {record['runs_done']} of {record['runs_planned']} runs ({record['state']}). "
        "Mean over seeds ± half of the 95 % interval (Student's t)."
    ]
    for title, columns in COMPARISONS[name].tables.items():
        lines += [f"**{title}**", markdown(record["summary"], columns, COMPARISONS[name].decimals)]
    lines += [f"Differences from *{record['reference_arm']}*, paired by seed, ± half of their 95 % interval:"]
    for title, columns in COMPARISONS[name].tables.items():
        lines += [f"**{title}**", markdown(record["summary"], columns, COMPARISONS[name].decimals, differences=True)]
    return "\n\n".join(lines) + "\n"


def draw(name: str, summary: dict[str, dict], path: Path) -> None:
    """Writes a PNG.

    Args:
        summary: as `summarize_runs` returns it.
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
