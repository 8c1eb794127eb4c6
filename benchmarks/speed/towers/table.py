"""A run's rows as a Markdown table, for the terminal and the README."""

from benchmarks.speed.towers.workloads import OURS, REFERENCE

PART_NAMES = {"video": "video tower", "text": "text tower", "step": "training step"}


def format_table(rows: list[dict]) -> str:
    """Return the rows, a line each."""
    lines = [
        "| | size | dtype | batch | the release's way | TVTSv2 | times as fast | peak memory | MFU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        for name, ours in row["results"].items():
            if name == REFERENCE:
                continue
            slow = row["results"][REFERENCE]
            cells = (
                PART_NAMES[row["part"]] + ("" if name == OURS else f", {name.removeprefix(OURS).strip(' ,')}"),
                row["preset"],
                row["dtype"],
                row["batch_size"],
                f"{slow['median_ms']:,.0f} ms",
                f"{ours['median_ms']:,.0f} ms",
                f"{ours['speedup']:.2f}",
                f"{ours['peak_mib'] / max(slow['peak_mib'], 1e-9):.0%}",
                f"{ours['mfu']:.0%}",
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
