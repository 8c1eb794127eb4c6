"""Kill a training run with SIGKILL in each of its epochs, resume it each time, and compare its end bit by bit.

    python -m benchmarks.faults.resume_kills --scripts pretrain finetune --num_processes 1 2 --num_rounds 4

A short run of three epochs on a small generated corpus, with its logs and its evaluations during training, first
runs uninterrupted. Each round repeats it with three kills, one in each epoch: at a random moment in the first round and
every other one, while a checkpoint is written in those between. At the end weights, the last checkpoint's optimizer,
losses and metrics must be those of the uninterrupted run. Fine-tuning starts from the pre-trained model of one process,
on the captions of the same corpus.
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
from training.runtime.checkpoint_files import STATE_FILE, is_complete
from training.runtime.command_errors import OneLineParser, one_line_errors
from training.runtime.number_types import at_least

TRAINING = Path(__file__).parents[2] / "training"
NUM_EPOCHS, BATCH_SIZE = 3, 4
CAPTIONS = "seed42/webvid/train.tsv"  # in the corpus
SAVE_STEPS = {"pretrain": 5, "finetune": 3}  # of 16 and 8 steps per epoch: at least two checkpoints in each epoch
SETTINGS = {"dataloader_num_workers": 1, "save_strategy": "steps", "use_cpu": "true", "disable_tqdm": "true"}
SETTINGS |= {"max_steps": -1, "num_train_epochs": NUM_EPOCHS}
OWN_SETTINGS = {
    "pretrain": {"num_train_videos": 16, "num_train_captions": 32, "num_heldout_videos": 8, "num_heldout_captions": 0},
    "finetune": {"task": "retrieval", "lora_rank": 2, "eval_strategy": "steps"},
}
# These differ from run to run.
TIMINGS = {"samples_per_second", "data_wait_ratio", "peak_memory_gib", "mfu"}
TIMINGS |= {"eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}


@dataclass
class Run:
    """One training run, as a command that is always the same."""

    script: str
    folder: Path
    num_processes: int
    started: float = 0.0  # when it was last started, in the time of files

    @property
    def save_steps(self) -> int:
        """Steps from one checkpoint to the next."""
        return SAVE_STEPS[self.script]

    def start(self) -> subprocess.Popen:
        """Start or resume the run in a process group of its own."""
        launcher = [sys.executable]
        if self.num_processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={self.num_processes}"]
        settings = {**SETTINGS, **OWN_SETTINGS[self.script], "output_dir": self.folder}
        settings |= {f"{name}_steps": self.save_steps for name in ("save", "eval", "logging")}
        settings["per_device_train_batch_size"] = BATCH_SIZE // self.num_processes
        corpus = self.folder.parent / "corpus"
        if self.script == "pretrain":
            settings["corpus_dir"] = corpus
        else:
            settings |= {"model": self.folder.parent / "pretrain1_alone", "data": corpus / CAPTIONS}
            settings["eval_data"] = corpus / CAPTIONS
        options = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        log = self.folder.with_name(f"{self.folder.name}.log").open("ab")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.started = time.time()
        command = [*launcher, str(TRAINING / f"run_{self.script}.py"), *options]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def is_saving(self, first_step: int = 0) -> bool:
        """Return whether a checkpoint of `first_step` or later is being written."""
        unfinished = [path for path in self._checkpoints() if not (path / "trainer_state.json").exists()]
        return any(_step_of(path) >= first_step and _last_change(path) >= self.started for path in unfinished)

    def last_state(self) -> dict:
        """Return the state of the newest whole checkpoint, `global_step` and `epoch` among it; step 0 for none."""
        whole = [path for path in self._checkpoints() if is_complete(path)]
        if not whole:
            return {"global_step": 0, "epoch": -1.0}
        return json.loads((max(whole, key=_step_of) / STATE_FILE).read_text())

    def _checkpoints(self) -> list[Path]:
        return list(self.folder.glob("checkpoint-*"))

    def is_finished(self) -> bool:
        """Return whether the run has written its results."""
        return (self.folder / "eval_results.json").exists()

    def result(self) -> dict:
        """Return everything that must be equal in the end."""
        state = self.last_state()
        checkpoint = self.folder / f"checkpoint-{state['max_steps']}"
        results = json.loads((self.folder / "eval_results.json").read_text())
        reported = re.compile("sorting|text_to|video_to|num_|loss")
        metrics = {name: value for name, value in results.items() if reported.match(name)}
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


def kill_in_epoch(run: Run, epoch: int, *, while_saving: bool, generator: random.Random, seconds: float) -> dict:
    """Start a run and kill it in an epoch, after a checkpoint of that epoch; return what was hit.

    Args:
        epoch: from 0.
        while_saving: kill while the epoch's second checkpoint is written, otherwise at a random moment before it.
        seconds: that the steps from one checkpoint to the next take, about.
    """
    delay = generator.uniform(0, seconds)
    process, reached, state = run.start(), None, run.last_state()
    while process.poll() is None:
        if reached is None and int((state := run.last_state())["epoch"]) >= epoch:
            reached = time.monotonic()
        if reached is not None:
            is_due = run.is_saving(state["global_step"] + 1) if while_saving else time.monotonic() - reached > delay
            if is_due:
                kill(process)
                state, hit = run.last_state(), {"while_saving": run.is_saving()}
                hit |= {"last_step": state["global_step"], "epochs_at_last_step": round(state["epoch"], 3)}
                return hit if while_saving else {**hit, "seconds_after_save": round(delay, 3)}
        time.sleep(0.001)
    raise RuntimeError(f"The run ended before it could be killed in epoch {epoch}; see {run.folder}.log")


def same_bits(one: object, other: object) -> bool:
    """Return whether two nests of mappings, lists, tensors and values are equal to the bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_bits(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    return one == other


def measure(folder: Path, script: str, num_processes: int, num_rounds: int, generator: random.Random) -> dict:
    """Return the kills of a script's runs, and whether each ended as the uninterrupted run did."""
    alone = Run(script, folder / f"{script}{num_processes}_alone", num_processes)
    seconds = _finish(alone)
    rounds = []
    for number in tqdm(range(num_rounds), desc=f"{script}, {num_processes} processes"):
        run = Run(script, folder / f"{script}{num_processes}_killed{number}", num_processes)
        num_steps = alone.last_state()["max_steps"]
        between_saves = seconds * run.save_steps / num_steps / 2  # half of a run is its start
        kills = [
            kill_in_epoch(run, epoch, while_saving=bool(number % 2), generator=generator, seconds=between_saves)
            for epoch in range(NUM_EPOCHS)
        ]
        _finish(run)
        rounds.append({"kills": kills, "equal": _compare(run, alone)})
    return {"script": script, "num_processes": num_processes, "num_epochs": NUM_EPOCHS, "rounds": rounds}


def _finish(run: Run) -> float:
    """Run to the end without a kill, and return the seconds that it took."""
    started = time.monotonic()
    if run.start().wait() != 0:
        raise RuntimeError(f"The run failed; see {run.folder}.log")
    return time.monotonic() - started


def _compare(run: Run, alone: Run) -> dict[str, bool]:
    ours, theirs = run.result(), alone.result()
    return {name: same_bits(ours[name], theirs[name]) for name in theirs}


@one_line_errors(OSError, ValueError)
def main() -> None:
    """Kill each script's runs in each epoch, with each number of processes, and write the record."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scripts", nargs="*", default=list(SAVE_STEPS), choices=list(SAVE_STEPS))
    parser.add_argument("--num_processes", type=int, nargs="*", default=[1, 2], choices=[1, 2, 4])
    parser.add_argument("--num_rounds", type=at_least(1), default=2, help="runs of three kills, per script and number")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/resume_kills"), help="must not exist yet")
    parser.add_argument("--record", type=Path, default=Path("benchmarks/records/resume_kills.json"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    if "pretrain" not in options.scripts or 1 not in options.num_processes:
        _finish(Run("pretrain", options.folder / "pretrain1_alone", 1))  # fine-tuning's model, and the corpus
    generator, rows = random.Random(options.seed), []
    for script in sorted(options.scripts, reverse=True):  # pre-training first
        for num_processes in sorted(options.num_processes):
            rows.append(measure(options.folder, script, num_processes, options.num_rounds, generator))
            note = "equal: to the bit, with the same run uninterrupted"
            write_record(options.record, make_record("benchmarks.faults.resume_kills", note=note, rows=rows))
    if not all(all(each["equal"].values()) for row in rows for each in row["rounds"]):
        sys.exit("Not equal; see the record.")


if __name__ == "__main__":
    main()
