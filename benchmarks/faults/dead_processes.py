"""How long a pre-training run lives on after a worker or a process of it was killed or stopped; the bar is a minute.

    python -m benchmarks.faults.dead_processes

A short main job with the default limits (dataloader_timeout, heartbeat_seconds) is started, by torchrun where it has
two processes. At a random moment after its first checkpoint a loading worker, the first or the second process gets
SIGKILL or SIGSTOP. Measured is the time until the command has ended; its message is recorded, too.
"""

import argparse
import os
import random
import signal
import time
from pathlib import Path

import psutil

from benchmarks.faults.resume_kills import SETTINGS, Run, kill
from benchmarks.speed.steps.training_steps import write_record
from training.runtime.liveness import WORKER_NAME

CASES = [(kind, number) for kind in ("worker", "process 0", "process 1") for number in (signal.SIGKILL, signal.SIGSTOP)]


def find_victim(launcher: psutil.Process, kind: str) -> psutil.Process:
    """Returns a loading worker of a run in one process, or a process of a run in two."""
    if kind == "worker":
        return [child for child in launcher.children() if child.name() == WORKER_NAME][-1]
    return next(child for child in launcher.children() if child.environ().get("RANK") == kind[-1])


def measure(folder: Path, kind: str, number: signal.Signals, moment: float, limit_seconds: float) -> dict:
    """Returns how long the command lived on after a signal `moment` seconds after a checkpoint, and its message."""
    name = f"{kind}_{number.name}_{moment:.3f}".replace(" ", "_")
    run = Run(folder / name, folder / "corpus", 1 if kind == "worker" else 2)
    process = run.start()
    try:
        while run.last_step() == 0:
            if process.poll() is not None:
                raise RuntimeError(f"The run ended before its first checkpoint; see {run.folder}.log")
            time.sleep(0.01)
        time.sleep(moment)
        find_victim(psutil.Process(process.pid), kind).send_signal(number)
        started = time.monotonic()
        while process.poll() is None and time.monotonic() - started < limit_seconds:
            time.sleep(0.05)
        seconds = time.monotonic() - started if process.returncode is not None else None
    finally:
        if process.returncode is None:
            kill(process)
    log = Path(f"{run.folder}.log").read_text(encoding="utf-8").splitlines()
    errors = [line for line in log if line.startswith("error: ") or "SIGKILL" in line or "Signal 9" in line]
    return {
        "lost": kind,
        "signal": number.name,
        "seconds_after_the_checkpoint": round(moment, 2),
        "seconds_until_the_end": seconds if seconds is None else round(seconds, 1),
        "exit_code": process.returncode,
        "message": errors[0][:300] if errors else None,
    }


def main() -> None:
    """Measures all cases, and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_turns", type=int, default=1, help="of all cases")
    parser.add_argument("--limit_seconds", type=float, default=120, help="given up after that")
    parser.add_argument("--folder", type=Path, default=Path("outputs/dead_processes"), help="must not exist yet")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/dead_processes.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    SETTINGS["max_steps"] = 100_000  # it would take days
    os.environ["PYTHONUNBUFFERED"] = "1"
    rows, generator = [], random.Random(0)
    for kind, number in CASES * options.num_turns:
        rows.append(measure(options.folder, kind, number, generator.uniform(0, 2), options.limit_seconds))
        write_record(options.record, rows, "seconds_until_the_end: of the command, with the default limits")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
