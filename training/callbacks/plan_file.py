"""Writes which parameters a run freezes, and the rates of the rest, beside the weights."""

from pathlib import Path

from transformers import TrainerCallback

from training.parameter_rules import ParameterPlan
from training.runtime.run_folder import write_json

PLAN_FILE = "parameter_plan.json"


class PlanFile(TrainerCallback):
    """Write `parameter_plan.json` to the output folder at the start, and to each checkpoint.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: ParameterPlan):
        self.plan = plan

    def on_train_begin(self, args, state, control, **kwargs):
        self._write(Path(args.output_dir), state)

    def on_save(self, args, state, control, **kwargs):
        self._write(Path(args.output_dir) / f"checkpoint-{state.global_step}", state)

    def _write(self, folder: Path, state) -> None:
        if state.is_world_process_zero:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / PLAN_FILE, self.plan.to_dict())
