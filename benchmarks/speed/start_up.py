"""What starting costs: importing the packages, and loading a model from safetensors.

    python -m benchmarks.speed.start_up

Imports run in processes of their own, in turns with importing the classes of transformers' CLIP, which
any video-text model of transformers needs. Loading is compared with reading the weight file's bytes, warm in both.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from benchmarks.records import make_record, write_record
from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model

IMPORTS = {
    "transformers' CLIP": "import transformers.models.clip.modeling_clip, transformers.models.clip.processing_clip",
    "modeling_tvtsv2 and processing": "import modeling_tvtsv2, processing",
}
TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def time_imports(repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each import, in fresh processes that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in tqdm(range(repeats), desc="imports"):
        for name, statement in IMPORTS.items():
            run = subprocess.run(
                [sys.executable, "-c", TIMED.format(statement)], capture_output=True, text=True, check=True
            )
            seconds[name].append(float(run.stdout))
    return seconds


def time_loading(preset: str, repeats: int) -> tuple[int, dict[str, list[float]]]:
    """Returns the size of a model's weight file, and the seconds to read its bytes and to load the model from it."""
    seconds: dict[str, list[float]] = {"reading the bytes": [], "from_pretrained": []}
    with tempfile.TemporaryDirectory() as folder:
        TVTSv2Model(TVTSv2Config.from_preset(preset)).save_pretrained(folder)
        weights = Path(folder) / "model.safetensors"

        def load() -> None:
            model = TVTSv2Model.from_pretrained(folder)
            # Mapped weights are read when they are touched: touch them all.
            for parameter in model.parameters():
                parameter.detach().sum()

        for _ in tqdm(range(repeats), desc="loading"):
            for name, action in (("reading the bytes", weights.read_bytes), ("from_pretrained", load)):
                seconds[name].append(_seconds(action))
        return weights.stat().st_size, seconds


def _seconds(action: Callable) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    """Measures both, prints and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="b16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/start_up.json"))
    options = parser.parse_args()
    imports = time_imports(options.repeats)
    size, loading = time_loading(options.preset, options.repeats)
    medians = {name: statistics.median(seconds) for name, seconds in (imports | loading).items()}
    base, ours = (medians[name] for name in IMPORTS)
    record = make_record(
        "benchmarks.speed.start_up",
        repeats=options.repeats,
        median_seconds={name: round(seconds, 3) for name, seconds in medians.items()},
        import_cost_over_clip=round(ours / base - 1, 4),
        weight_file_mib=round(size / 2**20, 1),
    )
    write_record(options.record, record)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
