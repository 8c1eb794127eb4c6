"""Kills a pre-training run with SIGKILL again and again, starts it again each time, and compares its end bit by bit.

    python -m benchmarks.faults.resume_kills --num_kills 20 --num_processes 1 2 --seconds 480

A short run of the main job on a small generated corpus, with its logs and its evaluations during training, is first
left alone, then repeated under fire: every other kill comes at a random moment, the others while a checkpoint, one of
the next four, is being written. At the end weights, the last checkpoint's optimizer, losses and metrics must be those
of the run that was left alone.
"""

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file
from tqdm import tqdm

from benchmarks.records import make_record, write_record

SCRIPT = Path(__file__).parents[2] / "training" / "run_pretrain.py"
NUM_STEPS, SAVE_STEPS = 24, 3
SETTINGS = {
    "num_train_videos": 48,
    "num_train_captions": 32,
    "num_heldout_videos": 8,
    "num_heldout_captions": 0,
    "max_steps": NUM_STEPS,
    "save_steps": SAVE_STEPS,
    "eval_steps": SAVE_STEPS,
    "logging_steps": SAVE_STEPS,
    "dataloader_num_workers": 1,
    "use_cpu": "true",
    "disable_tqdm": "true",
}
# These differ from run to run.
TIMINGS = {"samples_per_second", "data_wait_ratio", "peak_memory_gib", "mfu"}
TIMINGS |= {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


@dataclass
class Run:
    """One pre-training, as a command that is always the same."""

    folder: Path
    corpus: Path
    num_processes: int
    started: float = 0.0  # when it was last started, in the time of files

    def start(self) -> subprocess.Popen:
        """Starts or continues the run in a process group of its own."""
        launcher = [sys.executable]
        if self.num_processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.num_processes}"]
        batch_size = 4 // self.num_processes
        settings = {**SETTINGS, "output_dir": self.folder, "corpus_dir": self.corpus}
        settings["per_device_train_batch_size"] = batch_size
        options = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.started = time.time()
        return subprocess.Popen(
            [*launcher, str(SCRIPT), *options], stdout=log, stderr=log, env=environment, start_new_session=True
        )

    def is_saving(self, first_step: int = 0) -> bool:
        """Whether a checkpoint, of `first_step` or later, is being written: begun since the start, and not complete."""
        unfinished = [path for path in self._checkpoints() if not (path / "trainer_state.json").exists()]
        return any(_step_of(path) >= first_step and _last_change(path) >= self.started for path in unfinished)

    def last_step(self) -> int:
        """Step of the newest whole checkpoint, 0 if there is none."""
        whole = [path for path in self._checkpoints() if (path / "trainer_state.json").exists()]
        return max(map(_step_of, whole), default=0)

    def _checkpoints(self) -> list[Path]:
        return list(self.folder.glob("checkpoint-*"))

    def is_finished(self) -> bool:
        """Whether the run has written its results."""
        return (self.folder / "eval_results.json").exists()

    def result(self) -> dict:
        """Returns everything that must be equal in the end."""
        checkpoint = self.folder / f"checkpoint-{NUM_STEPS}"
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        results = json.loads((self.folder / "eval_results.json").read_text())
        metrics = {name: value for name, value in results.items() if re.match("sorting|text_to|video_to|num_", name)}
        logs = [{k: v for k, v in entry.items() if k not in TIMINGS} for entry in state["log_history"]]
        return {
            "weights": load_file(self.folder / "model.safetensors"),
            "optimizer": torch.load(checkpoint / "optimizer.pt", weights_only=True),
            "losses": logs,
            "metrics": metrics,
        }


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _last_change(folder: Path) -> float:
    times = [0.0]
    with contextlib.suppress(FileNotFoundError):  # rotated away
        for path in (folder, *folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # a temporary file that is done
                times.append(path.stat().st_mtime)
    return max(times)


def kill(process: subprocess.Popen) -> None:
    """Kills a run and all its processes at once; torchrun's are in sessions of their own, and would live on."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family[1:], timeout=30)


def start_and_kill(run: Run, *, at_seconds: float | None = None, at_save: int | None = None) -> bool:
    """Starts a run and kills it at `at_seconds`, or while it writes its `at_save`-th checkpoint (1, 2, …).

    False: it ended before.
    """
    first_step = 0 if at_save is None else min(run.last_step() + at_save * SAVE_STEPS, NUM_STEPS)
    process, started = run.start(), time.monotonic()
    while process.poll() is None:
        if run.is_saving(first_step) if at_save else time.monotonic() - started > at_seconds:
            kill(process)
            return True
        time.sleep(0.001 if at_save else 0.02)
    if process.returncode != 0:
        raise RuntimeError(f"The run could not be continued; see {run.folder}.log")
    return False


def same_bits(one: object, other: object) -> bool:
    """Whether two nests of mappings, lists, tensors and values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return one == other


def measure(folder: Path, num_processes: int, num_kills: int, seconds: float, generator: random.Random) -> dict:
    """Returns the kills of one run, and whether what came out is equal to the run that was left alone."""
    end = time.monotonic() + seconds
    alone = Run(folder / f"alone{num_processes}", folder / "corpus", num_processes)
    durations = [_finish(alone)]
    run, kills, num_runs = Run(folder / f"killed{num_processes}_0", folder / "corpus", num_processes), [], 1
    with tqdm(total=num_kills, desc=f"kills, {num_processes} processes") as bar:
        while len(kills) < num_kills and time.monotonic() + 1.5 * durations[-1] < end:
            # A run that is through is started anew, under the same fire.
            if run.is_finished():
                if kills:
                    kills[-1]["equal"] = _compare(run, alone)
                run = Run(folder / f"killed{num_processes}_{num_runs}", folder / "corpus", num_processes)
                num_runs += 1
            if len(kills) % 2:
                moment = {"at_save": generator.randint(1, 4)}
            else:
                moment = {"at_seconds": round(generator.uniform(0, durations[-1]), 3)}
            started, is_fresh = time.monotonic(), run.last_step() == 0
            if start_and_kill(run, **moment):
                kills.append({**moment, "while_saving": run.is_saving(), "last_step": run.last_step()})
                bar.update()
            elif is_fresh:
                durations.append(time.monotonic() - started)  # the machine is not always equally fast
    if not run.is_finished():
        _finish(run)
    return {
        "num_processes": num_processes,
        "num_kills": len(kills),
        "num_kills_while_saving": sum(kill["while_saving"] for kill in kills),
        "seconds_alone": [round(duration, 1) for duration in durations],
        "equal": _compare(run, alone),
        "kills": kills,
    }


def _finish(run: Run) -> float:
    """Starts a run, leaves it alone, and returns the seconds that it took."""
    started = time.monotonic()
    if run.start().wait() != 0:
        raise RuntimeError(f"The run failed; see {run.folder}.log")
    return time.monotonic() - started


def _compare(run: Run, alone: Run) -> dict[str, bool]:
    ours, theirs = run.result(), alone.result()
    return {name: same_bits(ours[name], theirs[name]) for name in theirs}


def main() -> None:
    """Kills as often as the time allows, with each number of processes, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_kills", type=int, default=20)
    parser.add_argument("--num_processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=480, help="for all; no kill after that")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/resume_kills"), help="must not exist yet")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/resume_kills.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    generator, rows = random.Random(options.seed), []
    share = options.seconds / len(options.num_processes)
    for num_processes in options.num_processes:
        rows.append(measure(options.folder, num_processes, options.num_kills, share, generator))
        note = "equal: to the bit, with the same run left alone"
        write_record(options.record, make_record("benchmarks.faults.resume_kills", note=note, rows=rows))
    if not all(all(row["equal"].values()) for row in rows):
        sys.exit("Not equal; see the record.")


if __name__ == "__main__":
    main()
