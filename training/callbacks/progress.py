"""Metrics of training itself: losses, accuracies, speed, use of the device, waiting, memory.

Sums stay where they are computed and are read when the run logs: no step waits for an accelerator.

Axes: N videos of all processes, P projection.
"""

import resource
import sys
import time
from pathlib import Path

import torch
from torch import nn
from transformers import TrainerCallback

from training.contrast.gather import num_processes, sum_over_processes

METRICS = ("contrastive_loss", "sorting_loss", "contrastive_accuracy", "sorting_accuracy")


class TrainingProgress(TrainerCallback):
    """Collect the metrics of steps, from one log to the next.

    The callback's events tell the time that is spent on waiting for data (from the end of a step, or of what followed
    it, to the start of the next) and on evaluation and saving (from the end of a step to the end of those).

    Args:
        device: of this process.
        peak_tflops: the device's peak in 10^12 operations per second; None: MFU is not reported.
    """

    def __init__(self, device: torch.device, peak_tflops: float | None = None):
        self.device, self.peak_tflops = device, peak_tflops
        self.learning_rates: dict[str, float] = {}  # of the last step, by group
        self._since = self._last_event = None
        self._reset()

    def _reset(self) -> None:
        self._sums = {name: torch.zeros((), device=self.device) for name in METRICS}
        self._counts = dict.fromkeys(METRICS, 0)
        self._num_samples = self._num_flops = 0
        self._waited = self._paused = 0.0
        self._since = None if self._since is None else time.perf_counter()

    def add(self, num_samples: int, **metrics: torch.Tensor | None) -> None:
        """Record one batch: its samples in this process, and scalars named as in `METRICS`."""
        self._num_samples += num_samples
        for name, value in metrics.items():
            if value is not None:
                self._sums[name] = self._sums[name] + value.detach()
                self._counts[name] += 1

    def add_flops(self, num_flops: int) -> None:
        """Record the floating-point operations of a batch in this process."""
        self._num_flops += num_flops

    def _elapsed(self) -> float:
        """Return the seconds since the last event, and start over."""
        before, self._last_event = self._last_event, time.perf_counter()
        return 0.0 if before is None else self._last_event - before

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._elapsed()
        self._since = self._last_event if self._since is None else self._since

    def on_step_begin(self, args, state, control, **kwargs):
        self._waited += self._elapsed()

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        self.learning_rates = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}

    def on_step_end(self, args, state, control, **kwargs):
        self._elapsed()

    def on_epoch_end(self, args, state, control, **kwargs):
        self._elapsed()

    def on_evaluate(self, args, state, control, **kwargs):
        self._paused += self._elapsed()

    def on_save(self, args, state, control, **kwargs):
        self._paused += self._elapsed()

    def read(self) -> dict[str, float]:
        """Return means over steps and processes since the last call, and start over. All processes must call it.

        `samples_per_second` and `mfu` (ratio of `peak_tflops`) are those of all processes together; `data_wait_ratio`
        is the share of time in which a process waited for its batch; `peak_memory_gib` is this process's so far, on its
        accelerator, or in main memory if it has none.
        """
        elapsed = 0.0 if self._since is None else time.perf_counter() - self._since - self._paused
        own = [*torch.stack(list(self._sums.values())).tolist(), *self._counts.values()]
        own += [self._num_samples, self._num_flops, self._waited, elapsed]
        total = sum_over_processes(own, self.device)
        sums, counts, (samples, flops, waited, elapsed) = total[:4], total[4:8], total[8:]
        logs = {name: value / count for name, value, count in zip(METRICS, sums, counts, strict=True) if count}
        if elapsed > 0:
            logs["samples_per_second"] = samples / elapsed * num_processes()
            logs["data_wait_ratio"] = waited / elapsed
            if self.peak_tflops is not None:
                logs["mfu"] = flops / elapsed / (self.peak_tflops * 1e12)
        logs["peak_memory_gib"] = peak_memory_bytes(self.device) / 2**30
        if len(self.learning_rates) > 1:
            logs |= {f"learning_rate/{name}": rate for name, rate in self.learning_rates.items()}
        self._reset()
        return logs


@torch.no_grad()
def contrastive_accuracy(
    video_embeds: torch.Tensor, text_embeds: torch.Tensor, max_similarities: int = 2**20
) -> torch.Tensor:
    """Return the ratio of the (N, P) videos and texts that are most similar to their own counterpart, a scalar."""
    videos, texts = nn.functional.normalize(video_embeds, dim=-1), nn.functional.normalize(text_embeds, dim=-1)
    own = torch.arange(len(videos), device=videos.device)
    num_right = 0
    for rows in own.split(max(1, max_similarities // len(own))):
        num_right = num_right + ((videos[rows] @ texts.T).argmax(dim=1) == rows).sum()
        num_right = num_right + ((texts[rows] @ videos.T).argmax(dim=1) == rows).sum()
    return num_right / (2 * len(own))


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that tensors took on an accelerator, or this process in main memory."""
    if device.type != "cpu" and hasattr(torch.get_device_module(device), "max_memory_allocated"):
        return torch.get_device_module(device).max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: the peak of getrusage starts at the memory of the parent process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
