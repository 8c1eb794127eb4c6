"""Short runs of the main job on a small generated corpus, made once a session."""

import json
import multiprocessing
import os
from pathlib import Path

import yaml

from tests.support.docs_commands import run_and_exit
from tests.support.paths import ROOT
from tests.support.processes import exit_codes, start_processes

SCRIPT = str(ROOT / "training" / "run_pretrain.py")
# Two sources of two steps each: an epoch is 4 optimizer steps, and checkpoint 5 lies inside the second.
NUM_STEPS, SAVE_STEPS = 8, 5
COUNTS = {"num_train_videos": 8, "num_train_captions": 8, "num_heldout_videos": 6, "num_heldout_captions": 35}
SETTINGS = {
    **COUNTS,
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
    """Return a YAML file for a run into `folder / name` on the session's corpus."""
    folders = {"output_dir": str(folder / name), "corpus_dir": str(folder / "corpus")}
    common = SETTINGS | folders
    if "sources" in settings:
        common = {key: value for key, value in common.items() if key not in ("corpus_dir", *COUNTS)}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(common | settings))
    return path


def start(config: Path, log: Path, num_processes: int = 1) -> list[multiprocessing.Process]:
    """Return the processes of a run, which can be killed with their children; what they say goes to `log`."""
    return start_processes(num_processes, run_and_exit, str(ROOT), "training.run_pretrain", [str(config)], log=log)


def finish(config: Path, log: Path, num_processes: int = 1) -> None:
    """Run to the end; an error is a failed test that shows what was said."""
    codes = exit_codes(start(config, log, num_processes), TIMEOUT_SECONDS)
    assert codes == [0] * num_processes, log.read_text(encoding="utf-8")[-5000:]


def finished_run(folder: Path) -> Path:
    """Return the folder of an uninterrupted run in one process, launched as the README says; made once per session."""
    if not (folder / "alone" / "eval_results.json").is_file():
        launch = ["--cpu", "--num_processes", "1", SCRIPT, str(write_config(folder, "alone"))]
        log = folder / "alone.log"
        codes = exit_codes(start_processes(1, _launch, launch, log=log), TIMEOUT_SECONDS)
        assert codes == [0], log.read_text(encoding="utf-8")[-5000:]
    return folder / "alone"


def _launch(arguments: list[str]) -> None:
    """As `accelerate launch`, which starts Python with the script, after its own imports of many seconds."""
    os.environ["OMP_NUM_THREADS"] = "1"
    run_and_exit(str(ROOT), "accelerate.commands.launch", arguments)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
