"""The record of the reading benchmark as Markdown tables: the bars, times, processor time and peak memory."""

from pathlib import Path

from benchmarks.speed.reading.rivals import NUM_FRAMES, READERS

TITLES = {
    "median_ms": "Time passed, ms per file, in brackets times faster than transformers' PyAV reader",
    "cores_ms": "Time of all processor cores, ms per file, in brackets as above",
    "peak_bytes": "Peak memory of one read beyond what the process held before, MiB",
}

# What is asked of this reader on the 10-minute files at 2 threads, and of every file at any number of threads.
LONG_FILES = "_600s."
LONG_FILE_BARS = {"transformers": 20, "torchcodec's best mode": 1.5}
EXACT_RIVAL_BAR = 0.9


def write_tables(record: dict, path: Path) -> None:
    """Writes the tables of a record."""
    parts = [
        f"12 frames of each file. {record['device']}.",
        record["note"],
        f"Made files not timed: {', '.join(record['not_run']) or 'none'}.",
        judge_bars(record["rows"]),
        "Times faster than others (times passed, our reader on as many threads). An exact rival is one that gives all "
        "frames of this file right.\n\n" + _format_bars(record["rows"]),
    ]
    for measure, title in TITLES.items():
        rows = {file: row for file, row in record["rows"].items() if any(measure in r for r in row["readers"].values())}
        if rows:
            parts.append(f"{title}:\n\n" + _format_table(rows, measure))
    path.write_text("\n\n".join(part for part in parts if part) + "\n")


def compare(readers: dict[str, dict], num_threads: int) -> dict[str, float]:
    """How many times faster ours is, on one file, than each kind of rival that read it; none where none did."""
    ours = readers.get(f"ours, {num_threads} threads", {}).get("median_ms")
    if ours is None:
        return {}
    rivals = {"transformers": [], "torchcodec's best mode": [], "fastest exact rival": []}
    for name, result in readers.items():
        if "median_ms" not in result or name.startswith("ours"):
            continue
        if name == "transformers":
            rivals["transformers"].append(result["median_ms"])
        elif not name.endswith(f", {num_threads} threads"):
            continue
        if name.startswith("torchcodec"):
            rivals["torchcodec's best mode"].append(result["median_ms"])
        if result["same"] == NUM_FRAMES:
            rivals["fastest exact rival"].append(result["median_ms"])
    return {kind: min(times) / ours for kind, times in rivals.items() if times}


def judge_bars(rows: dict[str, dict]) -> str:
    """Which files reach each bar and which do not, one line for each bar."""
    long_files = {file: row for file, row in rows.items() if LONG_FILES in file}
    lines = [
        _judge(f"At least {bar:g} times {kind} at 2 threads on 10-minute files", long_files, (2,), kind, bar)
        for kind, bar in LONG_FILE_BARS.items()
    ]
    title = f"Never slower than {EXACT_RIVAL_BAR:g} of the fastest exact rival, at 1 or 2 threads"
    return "\n".join([*lines, _judge(title, rows, (1, 2), "fastest exact rival", EXACT_RIVAL_BAR)])


def _judge(title: str, rows: dict, thread_counts: tuple[int, ...], kind: str, bar: float) -> str:
    missed, num_compared, without_rival = [], 0, []
    for file, row in rows.items():
        for count in thread_counts:
            ratio = compare(row["readers"], count).get(kind)
            if ratio is not None:
                num_compared += 1
                missed += [f"{file} ({ratio:.2f}, {count} thread{'s' * (count > 1)})"] if ratio < bar else []
            elif f"ours, {count} threads" in row["readers"] and file not in without_rival:
                without_rival.append(file)
    line = f"- {title}: reached in {num_compared - len(missed)} of {num_compared} comparisons"
    line += f"; missed on {', '.join(missed)}" if missed else ""
    return line + (f"; no such rival read {', '.join(without_rival)}" if without_rival else "") + "."


def _format_bars(rows: dict) -> str:
    kinds = ["transformers", "torchcodec's best mode", "fastest exact rival"]
    columns = [(num_threads, kind) for num_threads in (1, 2) for kind in kinds]
    lines = [
        "| file | " + " | ".join(f"{kind}, {count} thread{'s' * (count > 1)}" for count, kind in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for file, row in rows.items():
        ratios = {num_threads: compare(row["readers"], num_threads) for num_threads in (1, 2)}
        cells = [f"{ratios[count][kind]:.2f}" if kind in ratios[count] else "" for count, kind in columns]
        lines.append(f"| {file} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


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
    if measure == "peak_bytes":
        return f"{result[measure] / 2**20:,.0f}"
    cell = f"{result[measure]:,.0f}" + (f" ({slowest / result[measure]:.1f})" if slowest else "")
    if result["same"] < NUM_FRAMES:
        cell += f", {result['same']} of {NUM_FRAMES} right"
    return cell
