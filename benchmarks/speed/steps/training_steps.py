"""Runs of `training/cost/measure_step.py`, each in a process of its own, so that peaks of memory are its own.

Benchmarks start it as users do, from the command line.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "training" / "cost" / "measure_step.py"


def measure_step(*options: object, num_processes: int = 1, timeout_seconds: float | None = None) -> dict | None:
    """Return what the script prints for the options, or None if it took longer than `timeout_seconds`.

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
