"""Alternating repeats, peaks of memory, and the matrix-product peak of a device."""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from modeling_tvtsv2.fast_linear import linear
from training.callbacks.progress import peak_memory_bytes

_RESET_PEAK = "/proc/self/clear_refs"


@dataclass(frozen=True)
class Timing:
    """Seconds of the repeats of one contender, and the memory that its run took at its peak beyond the start."""

    seconds: tuple[float, ...]
    peak_bytes: int

    @property
    def median(self) -> float:
        """The middle of the repeats."""
        return statistics.median(self.seconds)

    def record(self) -> dict:
        """Return what a record keeps: median, extremes and peak memory."""
        return {
            "median_ms": round(self.median * 1e3, 3),
            "min_ms": round(min(self.seconds) * 1e3, 3),
            "max_ms": round(max(self.seconds) * 1e3, 3),
            "repeats": len(self.seconds),
            "peak_mib": round(self.peak_bytes / 2**20, 1),
        }


# By the wall, or by what this process computed: the only fair one where others compute too, with one thread (threads
# that wait for each other compute as well), and never for an accelerator.
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def time_alternately(
    contenders: dict[str, Callable], device: torch.device, repeats: int, clock: str = "wall"
) -> dict[str, Timing]:
    """Return each contender's timing. They take turns, so that what slows the machine down meets all of them.

    The first call of each warms up and is where its peak of memory is taken; it is not timed.

    Args:
        clock: one of `CLOCKS`.
    """
    now = CLOCKS[clock]
    if device.type == "cuda":
        for run in contenders.values():  # what stays allocated (an optimizer's state) is no part of the peak
            run()
    peaks = {name: _peak_bytes(run, device) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            _wait(device)
            start = now()
            run()
            _wait(device)
            seconds[name].append(now() - start)
    return {name: Timing(tuple(seconds[name]), peaks[name]) for name in contenders}


def matmul_peak(device: torch.device, dtype: torch.dtype, size: int = 4096, clock: str = "wall") -> float:
    """Return the FLOP/s that products of (size, size) matrices reach: what MFU is a share of.

    By the faster of PyTorch's operator and the linear layers' own way.
    """
    side = torch.randn(size, size, device=device).to(dtype)
    products = {"PyTorch's": lambda: nn.functional.linear(side, side), "ours": lambda: linear(side, side)}
    timings = time_alternately({name: torch.no_grad()(run) for name, run in products.items()}, device, 5, clock)
    return 2 * size**3 / min(min(timing.seconds) for timing in timings.values())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(run: Callable, device: torch.device) -> int:
    """Return by how much memory grew at most while `run` ran."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    gc.collect()
    _reset_resident_peak()
    before = peak_memory_bytes(device)
    run()
    return peak_memory_bytes(device) - before


def _reset_resident_peak() -> None:
    """Start the kernel's peak of this process anew where it can (Linux)."""
    if sys.platform == "linux":
        # Freed memory that the allocator kept would hide what the next run takes.
        ctypes.CDLL(None).malloc_trim(0)
        with open(_RESET_PEAK, "w") as file:
            file.write("5")
