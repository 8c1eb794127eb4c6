"""Run workloads over presets, dtypes and batch sizes, assert equality, and keep a record."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.records import make_record, write_record
from benchmarks.speed.towers.timing import matmul_peak, time_alternately
from benchmarks.speed.towers.workloads import (
    REFERENCE,
    Workload,
    make_model,
    text_forward,
    training_step,
    video_forward,
)

RECORDS = Path("benchmarks/records/tower_speed")
# Relative distance of what is compared. In bfloat16 it is the distance of either from the float32 result, and ours may
# be no further from it than the reference is, but for this factor of chance and one rounding: a loss is one number.
FLOAT32_TOLERANCE = 1e-4
BFLOAT16_FACTOR, BFLOAT16_ROUNDING = 1.5, 2**-9


class Measurement:
    """One run of the benchmark: its options, the device's peaks and the rows so far."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = torch.device(options.device)
        self.record_path = options.record or RECORDS / f"{self.device.type}.json"
        self.rows: list[dict] = []
        self.peaks = {
            name: matmul_peak(self.device, getattr(torch, name), clock=options.clock) for name in options.dtypes
        }

    def run(self) -> None:
        """Measure every part asked for; the record is written after each row."""
        for part in self.options.parts:
            for preset in self.options.presets:
                for row in PARTS[part](self, preset):
                    self.rows.append({"part": part, "preset": preset, **row})
                    self._write()

    def compare(self, make: Callable[[torch.dtype, int], Workload]) -> Iterator[dict]:
        """Yield a row for each dtype and batch size of what `make` returns."""
        for batch_size in self.options.batch_sizes:
            exact = None
            for name in self.options.dtypes:
                workload = make(getattr(torch, name), batch_size)
                if exact is None:
                    exact = make(torch.float32, batch_size).outputs[REFERENCE]().float()
                yield {
                    "dtype": name,
                    "batch_size": batch_size,
                    "gflop": round(workload.flops / 1e9, 1),
                    "distances": assert_equal(workload, exact, name),
                    **self.time(workload.contenders, workload.flops, name),
                }

    def time(self, contenders: dict[str, Callable], flops: int, dtype: str) -> dict:
        """Return timings and MFU by contender, and how many times as fast as the reference each is."""
        timings = time_alternately(contenders, self.device, self.options.repeats, self.options.clock)
        results = {}
        for name, timing in timings.items():
            results[name] = timing.record()
            results[name]["mfu"] = round(flops / timing.median / self.peaks[dtype], 3)
            if REFERENCE in timings:
                results[name]["speedup"] = round(timings[REFERENCE].median / timing.median, 2)
        return {"results": results}

    def _write(self) -> None:
        record = make_record(
            "benchmarks.speed.towers",
            device=self.device,
            matmul_peak_tflops={name: round(peak / 1e12, 3) for name, peak in self.peaks.items()},
            clock=self.options.clock,
            rows=self.rows,
        )
        write_record(self.record_path, record)


def assert_equal(workload: Workload, exact: torch.Tensor, dtype: str) -> dict[str, float]:
    """Return each contender's distance from the reference's float32 result.

    Raises:
        AssertionError: ours is further away than its dtype's rounding explains.
    """
    distances = {name: distance(output().float(), exact) for name, output in workload.outputs.items()}
    limit = FLOAT32_TOLERANCE if dtype == "float32" else BFLOAT16_FACTOR * distances[REFERENCE] + BFLOAT16_ROUNDING
    for name, value in distances.items():
        assert value <= limit, f"{name} in {dtype} is {value:.2g} away from the reference, more than {limit:.2g}"
    return {name: float(f"{value:.2g}") for name, value in distances.items()}


def distance(output: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the length of the difference relative to the length of `exact`."""
    return ((output - exact).norm() / exact.norm()).item()


def measure_video(run: Measurement, preset: str) -> Iterator[dict]:
    """The video tower's forward pass."""
    model = make_model(preset, run.device, run.options.num_layers)

    def make(dtype: torch.dtype, batch_size: int) -> Workload:
        return video_forward(model, batch_size, dtype, run.options.compile)

    yield from run.compare(make)


def measure_text(run: Measurement, preset: str) -> Iterator[dict]:
    """The text tower's forward pass, eight texts a video."""
    model = make_model(preset, run.device, run.options.num_layers)
    yield from run.compare(lambda dtype, batch_size: text_forward(model, 8 * batch_size, dtype))


def measure_step(run: Measurement, preset: str) -> Iterator[dict]:
    """A training step by the preset's recipe."""

    def make(dtype: torch.dtype, batch_size: int) -> Workload:
        return training_step(make_model(preset, run.device, run.options.num_layers), preset, batch_size, dtype)

    yield from run.compare(make)


PARTS: dict[str, Callable[[Measurement, str], Iterator[dict]]] = {
    "video": measure_video,
    "text": measure_text,
    "step": measure_step,
}
