"""What a run shows of itself between two logs: losses, accuracies, speed, use of the device, waiting, memory.

Sums stay where they are computed, and are looked at when it is time to log: no step waits for an accelerator.

Axes: N videos of all processes, P projection.
"""

import contextlib
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from training.contrast.gather import num_processes, sum_over_processes

METRICS = ("contrastive_loss", "sorting_loss", "contrastive_accuracy", "sorting_accuracy")


class TrainingProgress:
    """Collects what steps tell, from one log to the next.

    Args:
        device: of this process.
        peak_tflops: the device's peak in 10^12 operations a second; None: MFU is not reported.
    """

    def __init__(self, device: torch.device, peak_tflops: float | None = None):
        self.device, self.peak_tflops = device, peak_tflops
        self._since = None
        self._reset()

    def _reset(self) -> None:
        self._sums = {name: torch.zeros((), device=self.device) for name in METRICS}
        self._counts = dict.fromkeys(METRICS, 0)
        self._num_samples = self._num_flops = 0
        self._waited = self._paused = 0.0
        self._since = None if self._since is None else time.perf_counter()

    def add(self, num_samples: int, num_flops: int, **metrics: torch.Tensor | None) -> None:
        """Takes note of one step: its samples and operations in this process, and scalars named as in `METRICS`."""
        self._num_samples += num_samples
        self._num_flops += num_flops
        for name, value in metrics.items():
            if value is not None:
                self._sums[name] = self._sums[name] + value.detach()
                self._counts[name] += 1

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Within, the process waits for its next batch."""
        started = time.perf_counter()
        self._since = started if self._since is None else self._since
        yield
        self._waited += time.perf_counter() - started

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Within, time is not training time: evaluation, saving."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def read(self) -> dict[str, float]:
        """Returns means over steps and processes since the last call, and starts over. All processes must call it.

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
        self._reset()
        return logs


@torch.no_grad()
def contrastive_accuracy(
    video_embeds: torch.Tensor, text_embeds: torch.Tensor, max_similarities: int = 2**20
) -> torch.Tensor:
    """Returns the share of the (N, P) videos and texts that are most similar to their own counterpart, a scalar."""
    videos, texts = nn.functional.normalize(video_embeds, dim=-1), nn.functional.normalize(text_embeds, dim=-1)
    own = torch.arange(len(videos), device=videos.device)
    num_right = 0
    for rows in own.split(max(1, max_similarities // len(own))):
        num_right = num_right + ((videos[rows] @ texts.T).argmax(dim=1) == rows).sum()
        num_right = num_right + ((texts[rows] @ videos.T).argmax(dim=1) == rows).sum()
    return num_right / (2 * len(own))


def peak_memory_bytes(device: torch.device) -> int:
    """Returns the most memory that tensors took on an accelerator, or this process in main memory."""
    if device.type != "cpu" and hasattr(torch.get_device_module(device), "max_memory_allocated"):
        return torch.get_device_module(device).max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        # Linux: what getrusage calls the peak starts at what the parent process held.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, kibibytes elsewhere
