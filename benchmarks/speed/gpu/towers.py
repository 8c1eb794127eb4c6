"""Matrix-product peak, towers and training steps on a GPU, beside the release's way."""

from collections.abc import Callable

import torch

from benchmarks.speed.towers.timing import matmul_peak, time_alternately
from benchmarks.speed.towers.workloads import (
    OURS,
    REFERENCE,
    Workload,
    assert_equal,
    compare,
    make_model,
    training_step,
    video_forward,
)

# What issue 21 asks for; MFU at h14 only.
BARS = {"forward": 4.0, "step": 3.0, "memory_share": 0.40, "mfu": 0.55}


def measure_device(setting, report: Callable) -> None:
    """Report the device, its peaks and the speed of its memory."""
    device = torch.device(setting.device)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        report("device", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    size = 256 if setting.is_small else 8192
    for dtype in (torch.bfloat16, torch.float32):
        report(f"matmul_tflops_{str(dtype).removeprefix('torch.')}", round(matmul_peak(device, dtype, size) / 1e12, 1))
    source = torch.empty(size, size, 8, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    timing = time_alternately({"": lambda: target.copy_(source)}, device, repeats=5)[""]
    report("copy_terabytes_per_second", round(2 * source.nbytes / min(timing.seconds) / 1e12, 3))


def measure_towers(setting, report: Callable) -> None:
    """Report towers and steps of b16 and h14 in bfloat16: times, memory, MFU, and which bars they meet."""
    device = torch.device(setting.device)
    peak = matmul_peak(device, torch.bfloat16, 256 if setting.is_small else 8192)
    forward, step = [("b16", 32), ("h14", 16)], [("b16", 12), ("b16", 48), ("h14", 2), ("h14", 8)]
    if setting.is_small:
        forward, step = [("tiny", 1)], [("tiny", 2)]
    for preset, batch_size in forward:
        workload, exact = _forward(preset, batch_size, setting)
        report(f"forward_{preset}_{batch_size}", _compare(workload, exact, setting, peak, "forward", preset))
        del workload, exact
        _release_memory(device)
    for preset, batch_size in step:
        workload = training_step(_model(preset, setting), preset, batch_size, torch.bfloat16)
        report(f"step_{preset}_{batch_size}", _compare(workload, None, setting, peak, "step", preset))
        del workload
        _release_memory(device)


def _model(preset: str, setting):
    return make_model(preset, torch.device(setting.device), num_layers=1 if setting.is_small else None)


def _forward(preset: str, batch_size: int, setting) -> tuple[Workload, torch.Tensor]:
    """Return the workload in bfloat16, and the reference's result in float32 for its first videos."""
    model = _model(preset, setting)
    exact = video_forward(model, batch_size, torch.float32).outputs[REFERENCE]()
    return video_forward(model, batch_size, torch.bfloat16), exact


def _compare(workload: Workload, exact: torch.Tensor | None, setting, peak: float, kind: str, preset: str) -> dict:
    """Return both contenders' results, by how much they differ, and which bars are met."""
    if exact is None:
        result = {"losses": {name: output().item() for name, output in workload.outputs.items()}}
    else:
        result = {"distances": assert_equal(workload, exact, "bfloat16")}
    results = compare(workload, torch.device(setting.device), setting.repeats, peak)
    ours, slow = results[OURS], results[REFERENCE]
    share = round(ours["peak_mib"] / max(slow["peak_mib"], 1e-9), 3)
    bars = {kind: ours["speedup"] >= BARS[kind], "memory_share": share <= BARS["memory_share"]}
    if preset == "h14":
        bars["mfu"] = ours["mfu"] >= BARS["mfu"]
    return result | {"results": results, "memory_share": share, "bars_met": bars}


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
