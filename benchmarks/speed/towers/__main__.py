"""Speed of the towers and of the training step, beside the slow reference.

    python -m benchmarks.speed.towers --presets b32 b16 --dtypes float32 bfloat16 --batch_sizes 1 4
    python -m benchmarks.speed.towers --parts video --device cuda --presets b16 h14 --dtypes bfloat16

Contenders take turns; equality with the reference is asserted in the same run; MFU is the share of a square matrix
product's speed on the same device in the same run. Writes a JSON record after each row, and prints its table.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.records import make_record, markdown_table, write_record
from benchmarks.speed.towers.timing import CLOCKS, matmul_peak
from benchmarks.speed.towers.workloads import (
    OURS,
    REFERENCE,
    Workload,
    assert_equal,
    compare,
    make_model,
    text_forward,
    training_step,
    video_forward,
)
from training.runtime.command_errors import OneLineParser, at_least, one_line_errors

PARTS = {"video": "video tower", "text": "text tower, 8 texts per video", "step": "training step"}
RECORDS = Path("benchmarks/records/tower_speed")


def make_workload(part: str, preset: str, dtype: torch.dtype, batch_size: int, options: argparse.Namespace) -> Workload:
    """Return what a row times."""
    model = make_model(preset, torch.device(options.device), options.num_layers)
    if part == "video":
        return video_forward(model, batch_size, dtype)
    if part == "text":
        return text_forward(model, 8 * batch_size, dtype)
    return training_step(model, preset, batch_size, dtype)


def measure_rows(options: argparse.Namespace, peaks: dict[str, float]) -> Iterator[dict]:
    """Yield a row for each part, preset, batch size and dtype.

    Args:
        peaks: FLOP/s of matrix products by dtype.
    """
    device = torch.device(options.device)
    for part, preset, batch_size in itertools.product(options.parts, options.presets, options.batch_sizes):
        exact = make_workload(part, preset, torch.float32, batch_size, options).outputs[REFERENCE]().float()
        for dtype in options.dtypes:
            workload = make_workload(part, preset, getattr(torch, dtype), batch_size, options)
            distances = assert_equal(workload, exact, dtype)
            results = compare(workload, device, options.repeats, peaks[dtype], options.clock)
            row = {"part": part, "preset": preset, "dtype": dtype, "batch_size": batch_size}
            yield row | {"gflop": round(workload.flops / 1e9, 1), "distances": distances, "results": results}


def format_table(rows: list[dict]) -> str:
    """Return the rows as Markdown."""
    head = ("", "size", "dtype", "batch", "the release's way", "TVTSv2", "times as fast", "peak memory", "MFU")
    lines = []
    for row in rows:
        slow, ours = row["results"][REFERENCE], row["results"][OURS]
        lines.append(
            (
                PARTS[row["part"]],
                row["preset"],
                row["dtype"],
                row["batch_size"],
                f"{slow['median_ms']:,.0f} ms",
                f"{ours['median_ms']:,.0f} ms",
                f"{ours['speedup']:.2f}",
                f"{ours['peak_mib'] / max(slow['peak_mib'], 1e-9):.0%}",
                f"{ours['mfu']:.0%}",
            )
        )
    return markdown_table(head, lines)


@one_line_errors(OSError, ValueError)
def main() -> None:
    """Measure what the command line asks for."""
    parser = OneLineParser(
        prog="python -m benchmarks.speed.towers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--presets", nargs="+", default=["b16"], choices=["tiny", "b32", "b16", "h14"])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch_sizes", nargs="+", type=at_least(1), default=[1, 4])
    parser.add_argument("--repeats", type=at_least(1), default=5)
    parser.add_argument("--num_threads", type=at_least(1), help="on the CPU; default: torch's choice")
    parser.add_argument(
        "--clock", default="wall", choices=list(CLOCKS), help="process: where others compute too; with --num_threads 1"
    )
    parser.add_argument("--num_layers", type=at_least(1), help="of the video tower, where the whole one takes too long")
    parser.add_argument("--record", type=Path, help="JSON file; default: benchmarks/records/tower_speed/<device>.json")
    options = parser.parse_args()
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    try:
        device = torch.device(options.device)
    except RuntimeError as error:
        parser.error(str(error).splitlines()[0])
    rows: list[dict] = []
    peaks = {name: matmul_peak(device, getattr(torch, name), clock=options.clock) for name in options.dtypes}
    tflops = {name: round(peak / 1e12, 3) for name, peak in peaks.items()}
    for row in measure_rows(options, peaks):
        rows.append(row)
        record = make_record(
            "benchmarks.speed.towers", device=device, matmul_peak_tflops=tflops, clock=options.clock, rows=rows
        )
        write_record(options.record or RECORDS / f"{device.type}.json", record)
    print(format_table(rows))


if __name__ == "__main__":
    main()
