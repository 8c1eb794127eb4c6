"""The output folder of a run: which run it holds, whether it can be resumed, and its results."""

import json
import re
from pathlib import Path

from processing.atomic_files import write_whole
from training.runtime.checkpoint_files import check_checkpoint, is_complete

RUN_FILE = "run.json"
RESULTS_FILE = "eval_results.json"
BROKEN_VIDEOS_FILE = "broken_videos.jsonl"
LAST_SAVE_FILE = "last_checkpoint.json"
# Settings that may change when a run resumes: they state where and how often, not what.
VOLATILE = (
    "dataloader_num_workers",
    "dataloader_prefetch_factor",
    "dataloader_timeout",
    "ddp_find_unused_parameters",
    "ddp_timeout",
    "disable_tqdm",
    "hub_token",
    "local_rank",
    "logging_dir",
    "peak_tflops",
    "report_to",
    "run_name",
)


class CheckpointError(RuntimeError):
    """A checkpoint could not be written."""


class RunFolder:
    """The `output_dir` of the run that `settings` describe.

    Nothing is written before `claim`, so that a start that fails leaves the folder as it was.

    Args:
        output_dir: made by `claim` where it is missing.
        settings: everything that decides the result, JSON-able.

    Raises:
        ValueError: the folder holds another run (the differences are shown) or other things.
    """

    def __init__(self, output_dir: str | Path, settings: dict):
        self.path = Path(output_dir)
        self.settings = {key: value for key, value in settings.items() if key not in VOLATILE}
        run_file = self.path / RUN_FILE
        if run_file.is_file():
            held = read_json(run_file)
            current = json.loads(json.dumps(self.settings))
            changes = [
                f"  {key}: {held.get(key)!r} there, {current.get(key)!r} now"
                for key in sorted(held.keys() | current.keys())
                if held.get(key) != current.get(key)
            ]
            if changes:
                raise ValueError(
                    f"{self.path} holds another run. Choose another --output_dir, or go back to its settings:\n"
                    + "\n".join(changes)
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ValueError(f"{self.path} is not empty and holds no run of this script. Choose another --output_dir.")

    def claim(self) -> None:
        """Write down whose folder this is, when training starts. Call it in one process only."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / RUN_FILE, self.settings)

    @property
    def results(self) -> dict | None:
        """The results of a finished run, else None."""
        file = self.path / RESULTS_FILE
        return read_json(file) if file.is_file() else None

    def last_checkpoint(self) -> str | None:
        """Return the newest complete checkpoint's path, or None where the run has not saved any yet.

        Raises:
            ValueError: it lacks files or has damaged ones, or a later one was saved and is gone.
        """
        checkpoints = [
            (int(match[1]), folder)
            for folder in self.path.glob("checkpoint-*")
            if (match := re.fullmatch(r"checkpoint-(\d+)", folder.name)) and is_complete(folder)
        ]
        step, newest = max(checkpoints, default=(0, None))
        last_save = self.path / LAST_SAVE_FILE
        saved_step = read_json(last_save).get("step", 0) if last_save.is_file() else 0
        if saved_step > step:
            raise ValueError(
                f"{self.path} had a checkpoint-{saved_step}, which is gone or broken. Put it back; or delete "
                f"{last_save} to go on at {newest.name if newest else 'the very beginning'}."
            )
        if newest is None:
            return None
        precision, num_processes = self.settings.get("mixed_precision"), self.settings.get("num_processes", 1)
        check_checkpoint(newest, num_processes=num_processes, has_scaler=precision == "fp16")
        return str(newest)


def read_json(path: Path) -> dict:
    """Return the mapping that a JSON file holds.

    Raises:
        ValueError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Put it back, or choose another --output_dir.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got a {type(content).__name__}; choose another --output_dir.")
    return content


def write_json(path: Path, content: dict) -> None:
    """Write a JSON file whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
