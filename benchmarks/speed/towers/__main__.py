"""Speed of the towers and of the training step, beside the slow reference.

    python -m benchmarks.speed.towers --presets b32 b16 --dtypes float32 bfloat16 --batch_sizes 1 4
    python -m benchmarks.speed.towers --parts video --device cuda --presets b16 h14 --dtypes bfloat16

Contenders take turns; equality with the reference is asserted in the same run; MFU is the share of a square matrix
product's speed on the same device in the same run. Writes a JSON record, and prints its table.
"""

import argparse
from pathlib import Path

import torch

from benchmarks.speed.towers.measure import PARTS, Measurement
from benchmarks.speed.towers.table import format_table
from benchmarks.speed.towers.timing import CLOCKS


def main() -> None:
    """Measure what the command line asks for, writing the record after each row."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.towers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--presets", nargs="+", default=["b16"], choices=["tiny", "b32", "b16", "h14"])
    parser.add_argument("--parts", nargs="+", default=["video", "text", "step"], choices=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num_threads", type=int, help="on the CPU; default: torch's choice")
    parser.add_argument(
        "--clock", default="wall", choices=list(CLOCKS), help="process: where others compute too; with --num_threads 1"
    )
    parser.add_argument("--num_layers", type=int, help="of the video tower, where the whole one takes too long")
    parser.add_argument("--compile", action="store_true", help="enter the tower under torch.compile as well")
    parser.add_argument("--record", type=Path, help="JSON file; default: benchmarks/records/tower_speed/<device>.json")
    options = parser.parse_args()
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    measurement = Measurement(options)
    measurement.run()
    print(format_table(measurement.rows))


if __name__ == "__main__":
    main()
