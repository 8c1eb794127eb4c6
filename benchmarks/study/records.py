"""The record of a study: every setting, every run, and the tables and the plot made from them."""

import dataclasses
from pathlib import Path

from benchmarks.records import COMPLETE, PARTIAL, make_record, write_record
from benchmarks.study.settings import Study
from benchmarks.study.summary import markdown, summarize_runs

# Title -> columns (head, metric).
TABLES = {
    "Time, percent": (
        ("order, zero-shot (50)", "order"),
        ("came first, probe (50)", "which_first"),
        ("of four, probe (25)", "four_in_order"),
        ("direction, zero-shot (50)", "direction"),
        ("motion, probe (25)", "probe/motion"),
        ("sorter (25)", "sorter"),
    ),
    "The same probes on patch tokens, percent": (
        ("came first (50)", "which_first/patches"),
        ("of four (25)", "four_in_order/patches"),
    ),
    "Plain retrieval, text to video R@1": (
        ("asr", "retrieval/asr"),
        ("caption", "retrieval/caption"),
        ("two events", "retrieval/ordered"),
    ),
}

COLORS = ("#4a5568", "#2f6fde", "#c0392b", "#1b7f4d", "#b7791f", "#6b46c1", "#2c7a7b", "#97266d")
PANEL_INCHES = (8.0, 2.3)
WIDTH_OF_ARMS = 0.6  # of the distance between two columns


def write_study(folder: Path, study: Study, runs: list[dict], num_planned: int) -> None:
    """Write sorting.json, sorting.md and sorting.png from the runs that are done, of `num_planned`."""
    arms = [arm.name for arm in study.arms]
    record = make_record(
        "benchmarks.study",
        state=COMPLETE if len(runs) == num_planned else PARTIAL,
        runs_done=len(runs),
        runs_planned=num_planned,
        intervals="mean over seeds, half width of the 95 % interval by Student's t",
        reference_arm=arms[0],
        summary=summarize_runs(runs, arms),
        study=dataclasses.asdict(study),
        runs=runs,
    )
    write_record(folder / "sorting.json", record)
    (folder / "sorting.md").write_text(_page(record), encoding="utf-8")
    draw(record["summary"], folder / "sorting.png")


def _page(record: dict) -> str:
    lines = [
        f"`{record['command']}`: {record['runs_done']} of {record['runs_planned']} runs ({record['state']}). "
        "Mean over seeds ± half of the 95 % interval (Student's t)."
    ]
    for title, columns in TABLES.items():
        lines += [f"**{title}**", markdown(record["summary"], columns)]
    lines += [f"Differences from *{record['reference_arm']}*, paired by seed, ± half of their 95 % interval:"]
    for title, columns in TABLES.items():
        lines += [f"**{title}**", markdown(record["summary"], columns, differences=True)]
    return "\n\n".join(lines) + "\n"


def draw(summary: dict[str, dict], path: Path) -> None:
    """Write a PNG of the tables; `summary` as `summarize_runs` returns it."""
    from matplotlib.figure import Figure

    picture = Figure(figsize=(PANEL_INCHES[0], PANEL_INCHES[1] * len(TABLES) + 0.4), layout="constrained")
    panels = picture.subplots(len(TABLES), 1)
    for axes, (title, columns) in zip(panels, TABLES.items(), strict=True):
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
