"""Throughput and memory of training against the mask ratio, and against the number of tuned text blocks; with a plot.

    python -m benchmarks.speed.steps.masking_and_freezing --preset b32 --batch_size 2 --num_threads 2

Two rule sets are compared: as released (the shallow text blocks are frozen, the embeddings below them are trained, so
the backward pass goes through all of them) and "nothing trained below" (embeddings frozen too, so that it ends where
training begins; training/configs/rules). Each point runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tqdm import tqdm

from benchmarks.records import make_record, write_record

SCRIPT = Path(__file__).parents[3] / "training" / "cost" / "measure_step.py"
MASK_RATIOS = (0.0, 0.3, 0.5, 0.7, 0.9)
NUM_TEXT_BLOCKS = {"tiny": 3, "b32": 12, "b16": 12, "h14": 24}
TEXT_MASK_RATIO = 0.7  # for the second series: little video, so that the text tower shows


def frozen_globs(num_blocks: int, num_tuned: int, freeze_below: bool) -> list[str]:
    """Return what freezes all but the last `num_tuned` of a text tower's blocks, and what lies below if asked."""
    globs = [f"text_model.encoder.layers.{index}.*" for index in range(num_blocks - num_tuned)]
    return [*globs, "text_model.embeddings.*"] if freeze_below else globs


def list_points(preset: str) -> list[dict]:
    """Return the points of both series: mask ratio, tuned blocks, and whether what lies below them is frozen."""
    num_blocks = NUM_TEXT_BLOCKS[preset]
    tuned = num_blocks // 4 or 1
    points = [
        {"series": "mask", "mask_ratio": ratio, "num_tuned": tuned, "freeze_below": False} for ratio in MASK_RATIOS
    ]
    steps = sorted({0, tuned, num_blocks // 2, num_blocks})
    for freeze_below in (False, True):
        points += [
            {"series": "text", "mask_ratio": TEXT_MASK_RATIO, "num_tuned": number, "freeze_below": freeze_below}
            for number in steps
        ]
    return points


def main() -> None:
    """Measure all points, write the record after each, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="b32", choices=list(NUM_TEXT_BLOCKS))
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--num_tokens", type=int, default=32, help="of a transcript")
    parser.add_argument("--num_steps", type=int, default=3, help="the first one warms up")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600, help="start nothing after that")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/masking_and_freezing.json"))
    options = parser.parse_args()
    end, rows = time.monotonic() + options.seconds, []
    for point in tqdm(list_points(options.preset), desc="points"):
        left = end - time.monotonic()
        rows.append(point | (measure(point, options, left) if left > 5 else {"not_run": "no time left"}))
        note = f"{options.preset}, batches of {options.batch_size}, {options.num_threads} CPU threads, float32"
        write_record(options.record, make_record("benchmarks.speed.steps.masking_and_freezing", note=note, rows=rows))
    draw(rows, options.record.with_suffix(".png"))


def measure(point: dict, options: argparse.Namespace, timeout_seconds: float) -> dict:
    """Return speed, work and memory at a point."""
    globs = frozen_globs(NUM_TEXT_BLOCKS[options.preset], point["num_tuned"], point["freeze_below"])
    arguments = ["--mask_ratio", point["mask_ratio"], "--logging_steps", options.num_steps]
    for name in ("preset", "batch_size", "num_tokens", "num_steps", "num_threads"):
        arguments += [f"--{name}", getattr(options, name)]
    arguments += ["--frozen", *globs] if globs else []
    result = measure_step(*arguments, timeout_seconds=timeout_seconds)
    if result is None:
        return {"not_run": "no time left"}
    return {
        "samples_per_second": round(result["samples_per_second"], 4),
        "tflop_per_step": round(result["tflop_per_step"], 4),
        "gib_beyond_the_start": round(result["peak_memory_gib"] - result["start_memory_gib"], 3),
    }


def measure_step(*options: object, timeout_seconds: float) -> dict | None:
    """Return what `measure_step.py` prints, run in a process of its own; None if it takes longer than that.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def draw(rows: list[dict], path: Path) -> None:
    """Draw samples per second and memory over both series."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex="col", layout="constrained")
    series = [
        ("as released", 0, "mask_ratio", lambda row: row["series"] == "mask"),
        ("as released", 1, "num_tuned", lambda row: row["series"] == "text" and not row["freeze_below"]),
        ("nothing trained below", 1, "num_tuned", lambda row: row["series"] == "text" and row["freeze_below"]),
    ]
    for label, column, axis, belongs in series:
        points = [row for row in rows if belongs(row) and "not_run" not in row]
        places = [row[axis] for row in points]
        axes[0][column].plot(places, [row["samples_per_second"] for row in points], "o-", label=label)
        axes[1][column].plot(places, [row["gib_beyond_the_start"] for row in points], "o-", label=label)
    for row, label in zip(axes, ("samples / s", "memory beyond the start / GiB"), strict=True):
        row[0].set_ylabel(label)
        for axis in row:
            axis.set_ylim(bottom=0)
            axis.legend()
    axes[1][0].set_xlabel("mask ratio")
    axes[1][1].set_xlabel(f"tuned text blocks (mask ratio {TEXT_MASK_RATIO:g})")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
