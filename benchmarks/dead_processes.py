"""How long a pre-training run lives on after a worker or a process of it was killed or stopped; the bar is a minute.

    python -m benchmarks.dead_processes

A short main job with the default limits (dataloader_timeout, heartbeat_seconds) is started, by torchrun where it has
two processes. At its first checkpoint a loading worker or the second process gets SIGKILL or SIGSTOP. Measured is the
time until the command has ended; its message is recorded, too.
"""

import argparse
import os
import signal
import time
from pathlib import Path

import psutil

from benchmarks.resume_kills import SETTINGS, Run, kill
from benchmarks.training_steps import write_record

CASES = [
    ("worker", signal.SIGKILL),
    ("worker", signal.SIGSTOP),
    ("process", signal.SIGKILL),
    ("process", signal.SIGSTOP),
]


def find_victim(launcher: psutil.Process, kind: str) -> psutil.Process:
    """Returns a loading worker of a run in one process, or the second process of a run in two."""
    if kind == "worker":
        return [child for child in launcher.children() if child.cmdline() == launcher.cmdline()][-1]  # it was forked
    return next(child for child in launcher.children() if child.environ().get("RANK") == "1")


def measure(folder: Path, kind: str, number: signal.Signals, limit_seconds: float) -> dict:
    """Returns how long it took until nothing of the run was left, and its message."""
    run = Run(folder / f"{kind}_{number.name}", folder / "corpus", 1 if kind == "worker" else 2)
    process = run.start()
    try:
        while run.last_step() == 0:
            if process.poll() is not None:
                raise RuntimeError(f"The run ended before its first checkpoint; see {run.folder}.log")
            time.sleep(0.01)
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
        "seconds_until_the_end": seconds if seconds is None else round(seconds, 1),
        "exit_code": process.returncode,
        "message": errors[0][:300] if errors else None,
    }


def main() -> None:
    """Measures all cases, and writes the record after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit_seconds", type=float, default=120, help="given up after that")
    parser.add_argument("--folder", type=Path, default=Path("outputs/dead_processes"), help="must not exist yet")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/dead_processes.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    SETTINGS["max_steps"] = 100_000  # it would take days
    os.environ["PYTHONUNBUFFERED"] = "1"
    rows = []
    for kind, number in CASES:
        rows.append(measure(options.folder, kind, number, options.limit_seconds))
        write_record(options.record, rows, "seconds_until_the_end: of the command, with the default limits")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
