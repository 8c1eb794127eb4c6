"""The metrics of a record as a table beside chance: for the terminal and for reports."""


def metric_columns(record: dict) -> dict[str, tuple[dict, dict]]:
    """Return (metrics, chance) by column: directions, plain and with dual softmax; other protocols have one column."""
    if record["protocol"] != "retrieval":
        return {"value": (record["metrics"], record["chance"])}
    columns = {}
    for direction, metrics in record["metrics"].items():
        name, chance = direction.replace("_", " "), record["chance"][direction]
        columns[name] = (metrics, chance)
        columns[f"{name}, dual softmax"] = (record["dual_softmax"]["metrics"][direction], chance)
    return columns


def metric_name(metric: str) -> str:
    """Return a metric's name with its unit: ratios are shown in percent."""
    return metric.replace("_", " ") + ("" if "rank" in metric else ", %")


def shown(metric: str, value: float) -> str:
    """Return a value as tables show it: percent for ratios, ranks as they are, one decimal."""
    return f"{value if 'rank' in metric else 100 * value:.1f}"


def format_metrics(record: dict) -> str:
    """Return the metrics with 95 % intervals and chance, one line per metric and column."""
    rows = [("", "", "value", "95 % interval", "chance")]
    for column, (metrics, chance) in metric_columns(record).items():
        for metric, found in metrics.items():
            low, high = (shown(metric, edge) for edge in found["interval_95"])
            title = "" if column == "value" else column
            cells = (shown(metric, found["value"]), f"{low} to {high}", shown(metric, chance[metric]))
            rows.append((title, metric_name(metric), *cells))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        aligned = (cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        lines.append("  ".join(aligned).rstrip())
    if "seeds" in record:
        mean, deviation = record["seeds"]["top_1_mean"], record["seeds"]["top_1_std"]
        count = len(record["seeds"]["runs"])
        lines.append(f"top 1 over {count} seeds: mean {100 * mean:.1f} %, standard deviation {100 * deviation:.1f}")
    return "\n".join(lines)
