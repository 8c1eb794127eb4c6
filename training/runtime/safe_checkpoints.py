"""A Trainer whose checkpoints can be trusted: complete in all processes, or an error that says what to do."""

import shutil
from pathlib import Path

from safetensors import SafetensorError
from transformers import Trainer

from training.runtime.liveness import is_of_a_worker
from training.runtime.run_folder import LAST_SAVE_FILE, CheckpointError, write_json


class SafeCheckpointTrainer(Trainer):
    """transformers' Trainer, but for how checkpoints are written; `RunFolder` reads what it leaves."""

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self.args.output_dir)
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            if is_of_a_worker(error):  # it died meanwhile
                raise
            free = shutil.disk_usage(folder).free / 2**30
            raise CheckpointError(
                f"The checkpoint of step {self.state.global_step} could not be written to {folder} ({free:.2f} GiB "
                f"free): {error}. Make room, then start again: the run goes on at the last complete checkpoint."
            ) from error
        if self.is_world_process_zero():
            write_json(folder / LAST_SAVE_FILE, {"step": self.state.global_step})

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # What comes next, trainer_state.json, marks the checkpoint as complete: first all processes must be done.
        self.accelerator.wait_for_everyone()
