"""The record of the reading benchmark as Markdown tables of times."""

from pathlib import Path

from benchmarks.speed.reading.rivals import NUM_FRAMES, READERS

TITLES = {
    "median_ms": "Time passed, ms per file, in brackets times faster than transformers' PyAV reader",
    "cores_ms": "Time of all processor cores, ms per file, in brackets as above",
}


def write_tables(record: dict, path: Path) -> None:
    """Write the tables of a record."""
    parts = [f"{NUM_FRAMES} frames of each file. {record['device']}.", record["note"]]
    parts += [f"{title}:\n\n{_format_table(record['rows'], measure)}" for measure, title in TITLES.items()]
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _format_table(rows: dict, measure: str) -> str:
    readers = list(READERS)
    names = {name for row in rows.values() for name in row["readers"]}
    names = sorted(names, key=lambda name: (readers.index(name.partition(",")[0]), name))
    lines = ["| file | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for file, row in rows.items():
        slowest = row["readers"].get("transformers", {}).get(measure)
        cells = [_format_cell(row["readers"].get(name, {}), measure, slowest) for name in names]
        lines.append(f"| {file} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _format_cell(result: dict, measure: str, slowest: float | None) -> str:
    if measure not in result:
        return "error" if "error" in result else ""
    cell = f"{result[measure]:,.0f}" + (f" ({slowest / result[measure]:.1f})" if slowest else "")
    if result["same"] < NUM_FRAMES:
        cell += f", {result['same']} of {NUM_FRAMES} right"
    return cell
