"""Runs of `training/cost/measure_step.py`, each in a process of its own, so that peaks of memory are its own.

Training knows nothing of benchmarks; these here start it as users do, from the command line.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "training" / "cost" / "measure_step.py"


def measure_step(*options: object, num_processes: int = 1, timeout_seconds: float | None = None) -> dict | None:
    """Returns what the script prints for the options, or None if it took longer than `timeout_seconds`.

    Raises:
        RuntimeError: the script failed; with the end of what it said.
    """
    launcher = [sys.executable]
    if num_processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    command = [*launcher, str(SCRIPT), *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    try:
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        return None
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def write_record(path: Path, rows: list[dict], note: str = "") -> None:
    """Writes rows with the command, the machine and its load beside them."""
    import torch

    module = Path(sys.argv[0]).stem
    record = {
        "command": " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]]),
        "device": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
        "load_at_the_end": os.getloadavg()[0],
        "note": note,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
