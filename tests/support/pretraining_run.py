"""Short runs of the main job on a small generated corpus, made once a session."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

from tests.support.paths import ROOT

SCRIPT = str(ROOT / "training" / "run_pretrain.py")
# Two sources of two steps each: an epoch is 4 optimizer steps, and checkpoint 5 lies inside the second.
NUM_STEPS, SAVE_STEPS, STEPS_PER_EPOCH = 8, 5, 6
SETTINGS = {
    "num_train_videos": 8,
    "num_train_captions": 8,
    "num_heldout_videos": 6,
    "num_heldout_captions": 35,
    "num_image_steps": 1,
    "max_steps": NUM_STEPS,
    "save_steps": SAVE_STEPS,
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "warmup_steps": 1,
    "learning_rate": 1.0e-3,
    "logging_steps": 1,
    "dataloader_num_workers": 1,
    "save_strategy": "steps",
    "eval_strategy": "steps",
    "eval_steps": SAVE_STEPS,
    "metric_for_best_model": "text_to_video_R@1",
    "greater_is_better": True,
    "save_total_limit": 2,
    "parameter_rules": [{"match": "text_model.encoder.layers.0.*", "frozen": True}, {"match": "*"}],
    "use_cpu": True,
}
TIMEOUT_SECONDS = 900


def write_config(folder: Path, name: str, **settings) -> Path:
    """Returns a YAML file for a run into `folder / name` on the session's corpus."""
    folders = {"output_dir": str(folder / name), "corpus_dir": str(folder / "corpus")}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(SETTINGS | folders | settings))
    return path


def start(*command: str, log: Path) -> subprocess.Popen:
    """Starts Python in a session of its own; what it says goes to `log`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def finish(*command: str, log: Path) -> str:
    """Runs Python to its end and returns what it said; an error is a failed test that shows it."""
    process = start(*command, log=log)
    try:
        code = process.wait(TIMEOUT_SECONDS)
    finally:
        kill(process)
    said = log.read_text(encoding="utf-8")
    assert code == 0, said[-5000:]
    return said


def kill(process: subprocess.Popen) -> None:
    """Ends a process and its children at once, as an operator's SIGKILL or a lost machine would."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(file: Path, process: subprocess.Popen) -> None:
    """Returns as soon as `file` is there; a process that ended before is a failed test."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not file.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def finished_run(folder: Path) -> Path:
    """Returns the folder of an uninterrupted run in one process; made at the first call of a session."""
    if not (folder / "alone" / "eval_results.json").is_file():
        config = str(write_config(folder, "alone"))
        launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", SCRIPT, config)
        finish(*launch, log=folder / "alone.log")
    return folder / "alone"


def finished_run_of_two_processes(folder: Path) -> Path:
    """Returns the folder of the same run by two processes with half the batch each."""
    config = str(write_config(folder, "together", per_device_train_batch_size=2))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port, SCRIPT, config)
    finish(*launch, "--use_cpu", "True", log=folder / "together.log")
    return folder / "together"


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
