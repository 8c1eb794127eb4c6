"""Stops a run whose loss is not a finite number, and says with which videos it happened."""

from pathlib import Path

import torch

from training.contrast.gather import sum_over_processes
from training.runtime.run_folder import write_json

NUM_LOSSES = 1024  # looked at by then, however rarely the run logs


class FiniteLossGuard:
    """Keeps each step's loss where it was computed, until it is time to look.

    Args:
        folder: gets the file `nonfinite_loss_<rank>.json`.
        rank: of this process.
    """

    def __init__(self, folder: str | Path, rank: int):
        self.file = Path(folder) / f"nonfinite_loss_{rank}.json"
        self._losses: list[torch.Tensor] = []
        self._batches: list[dict] = []

    def add(self, loss: torch.Tensor, step: int, video_ids: list[str] | None) -> None:
        """Takes note of a batch's loss."""
        self._losses.append(loss.detach())
        self._batches.append({"step": step, "video_ids": video_ids})
        del self._losses[:-NUM_LOSSES], self._batches[:-NUM_LOSSES]

    def check(self, device: torch.device) -> None:
        """Looks at the losses since the last call. All processes must call it, and all raise together.

        Raises:
            FloatingPointError: a loss was NaN or infinite. The file names that batch's videos, and those of the batch
                before, whose step may have broken the weights.
        """
        losses = torch.stack(self._losses).float().tolist() if self._losses else []
        finite = torch.tensor(losses).isfinite().tolist()
        first = finite.index(False) if False in finite else None
        (num_stopped,) = sum_over_processes([first is not None], device)
        if num_stopped:
            record = {}
            if first is not None:
                before = self._batches[first - 1] if first else None
                record = {"loss": str(losses[first]), **self._batches[first], "batch_before": before}
                self.file.parent.mkdir(parents=True, exist_ok=True)
                write_json(self.file, record)
            raise FloatingPointError(
                f"The loss of step {record['step']} was {record['loss']}. Its videos and those of the step before are "
                f"named in {self.file}. Nothing was saved since; lower the learning rate or clip (max_grad_norm)."
                if record
                else f"Another process's loss was not finite; see {self.file.parent}."
            )
        self._losses, self._batches = self._losses[-1:], self._batches[-1:]  # the next one's batch before
