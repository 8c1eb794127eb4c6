"""Ends a run whose loss or weights are not finite, before anything of it is evaluated or saved."""

import math
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from training.contrast.gather import sum_over_processes
from training.runtime.run_folder import write_json

NUM_LOSSES = 1024  # kept between two checks, however rarely the run logs


class FiniteLossGuard(TrainerCallback):
    """Keep each step's loss where it was computed, and check it with the weights at steps that are logged or evaluated.

    The Trainer calls `add` for each batch, and `check` before it saves. The last step of a run is always checked. All
    processes raise together.

    Args:
        folder: gets the file `nonfinite_loss_<rank>.json`.
        rank: of this process.
        device: of this process.
    """

    def __init__(self, folder: str | Path, rank: int, device: torch.device):
        self.file = Path(folder) / f"nonfinite_loss_{rank}.json"
        self.device = device
        self._losses: list[torch.Tensor] = []
        self._batches: list[dict] = []

    def add(self, loss: torch.Tensor, step: int, video_ids: list[str] | None) -> None:
        """Record a batch's loss."""
        self._losses.append(loss.detach())
        self._batches.append({"step": step, "video_ids": video_ids})
        del self._losses[:-NUM_LOSSES], self._batches[:-NUM_LOSSES]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_log or control.should_evaluate or state.global_step >= state.max_steps:
            self.check(model)

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        if control.should_log or control.should_evaluate:
            self.check(model)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        for name, value in (metrics or {}).items():
            if not math.isfinite(value):
                raise FloatingPointError(f"The evaluation after step {state.global_step} gave {name} = {value}.")

    def check(self, model: nn.Module) -> None:
        """Check the losses since the last call, and the model's trained weights.

        Raises:
            FloatingPointError: a loss or a weight is NaN or infinite. The file names the videos of the first such
                loss's batch, and of the batch before, whose step may have broken the weights.
        """
        losses = torch.stack(self._losses).float().tolist() if self._losses else []
        bad_loss = next((index for index, loss in enumerate(losses) if not math.isfinite(loss)), None)
        bad_weight = None if bad_loss is not None else _first_bad_weight(model)
        num_bad = sum_over_processes([bad_loss is not None, bad_weight is not None], self.device)
        if bad_loss is not None:
            self._raise_loss(losses, bad_loss)
        advice = "Nothing was saved since; lower the learning rate or clip (max_grad_norm)."
        if bad_weight is not None:
            step = self._batches[-1]["step"] if self._batches else 0
            raise FloatingPointError(f"{bad_weight} is not finite after step {step}. {advice}")
        if any(num_bad):
            raise FloatingPointError(f"Another process's loss was not finite; see {self.file.parent}.")
        self._losses, self._batches = self._losses[-1:], self._batches[-1:]  # the next one's batch before

    def _raise_loss(self, losses: list[float], index: int) -> None:
        before = self._batches[index - 1] if index else None
        record = {"loss": str(losses[index]), **self._batches[index], "batch_before": before}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, record)
        raise FloatingPointError(
            f"The loss of step {record['step']} was {record['loss']}. Its videos and those of the step before are "
            f"named in {self.file}. Nothing was saved since; lower the learning rate or clip (max_grad_norm)."
        )


@torch.no_grad()
def _first_bad_weight(model: nn.Module) -> str | None:
    """Return the name of a trained parameter with a value that is not finite, in this process's part, or None."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    parts = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in trained.values()]
    if not parts:
        return None
    are_finite = torch.stack([part.isfinite().all() for part in parts]).tolist()
    return next((name for name, is_finite in zip(trained, are_finite, strict=True) if not is_finite), None)
