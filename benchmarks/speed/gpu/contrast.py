"""Chunked contrast's memory against the batch size, and FSDP2 in one process."""

import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from benchmarks.speed.towers.workloads import distance, draw_batch, make_model
from modeling_tvtsv2 import TVTSv2ForPreTraining
from training.contrast.chunked_contrast import backward_in_chunks


def measure_memory(setting, report: Callable) -> None:
    """Report peak memory and seconds of b16's gradient: whole batches until memory ends, chunks to 4,096 videos."""
    device = torch.device(setting.device)
    model = make_model(*(("tiny", device, 1) if setting.is_small else ("b16", device))).train()
    whole, chunked, chunk_size = ((2,), (2, 4), 2) if setting.is_small else ((16, 32, 64, 128), (64, 1024, 4096), 32)
    batch = expanded_batch(model, whole[0], device)
    backward(model, batch, None, torch.float32)
    exact = flat_gradient(model)
    backward(model, batch, max(1, whole[0] // 4), torch.float32)
    report("distance_of_chunked_gradient_float32", distance(flat_gradient(model), exact))
    del exact
    for batch_size, chunk in [*((size, None) for size in whole), *((size, chunk_size) for size in chunked)]:
        name = f"batch_{batch_size}" + ("" if chunk is None else f"_chunks_of_{chunk}")
        try:
            report(name, _measure_gradient(model, expanded_batch(model, batch_size, device), chunk))
        except torch.OutOfMemoryError:
            report(name, "out of memory")
        model.zero_grad()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def expanded_batch(model: TVTSv2ForPreTraining, batch_size: int, device: torch.device) -> dict:
    """Return a batch whose videos share one video's memory, so that the input takes none that grows."""
    batch = draw_batch(model.config, 1, 0.5, device)
    texts = draw_batch(model.config, 1, 0.0, device)["input_ids"]
    texts = texts.expand(batch_size, -1, -1).clone()
    texts[:, :, 1] = torch.arange(batch_size, device=device)[:, None] % 30 + 4  # no two of 30 neighbors are alike
    shared = ("pixel_values_videos", "bool_masked_pos", "sorting_labels")
    return (
        batch | {name: batch[name].expand(batch_size, *batch[name].shape[1:]) for name in shared} | {"input_ids": texts}
    )


def backward(
    model: TVTSv2ForPreTraining, batch: dict, chunk_size: int | None, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Compute the gradient of a batch, in chunks of so many videos or whole."""
    model.zero_grad()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        if chunk_size is None:
            model(**batch).loss.backward()
            return
        backward_in_chunks(
            model,
            batch,
            chunk_size=chunk_size,
            temperature=model.config.contrastive_temperature,
            device=model.device,
            backward=torch.Tensor.backward,
        )


def _measure_gradient(model: TVTSv2ForPreTraining, batch: dict, chunk_size: int | None) -> dict:
    on_cuda = model.device.type == "cuda"
    model.zero_grad()
    before = torch.cuda.memory_allocated() if on_cuda else 0
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    backward(model, batch, chunk_size)
    if on_cuda:
        torch.cuda.synchronize()
    seconds = round(time.perf_counter() - started, 2)
    peak = torch.cuda.max_memory_allocated() - before if on_cuda else 0
    return {"seconds": seconds, "peak_gib_beyond_the_weights": round(peak / 2**30, 2)}


def flat_gradient(model: torch.nn.Module) -> torch.Tensor:
    """Return the gradient of all parameters as one float32 vector."""
    gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    return torch.cat([_whole(gradient).flatten().float() for gradient in gradients])


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def check_fsdp2(setting, report: Callable) -> None:
    """Report the gradient of a sharded b16 beside the unsharded one, a step by AdamW, and its time and memory.

    Raises:
        AssertionError: the gradients differ by more than float32's rounding.
    """
    device = torch.device(setting.device)
    model = make_model(*(("tiny", device, 1) if setting.is_small else ("b16", device))).train()
    batch = draw_batch(model.config, 2 if setting.is_small else 12, 0.5, device)
    backward(model, batch, None, torch.float32)
    exact = flat_gradient(model)
    names = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    with tempfile.TemporaryDirectory() as folder:
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            for module in list(model.modules()):
                if type(module).__name__ in model._no_split_modules:
                    fully_shard(module)
            fully_shard(model)
            backward(model, batch, None, torch.float32)
            assert names == [name for name, parameter in model.named_parameters() if parameter.grad is not None]
            apart = distance(flat_gradient(model), exact)
            report("distance_of_sharded_gradient_float32", apart)
            assert apart < 1e-4, f"gradients differ by {apart}"
            report("step", _measure_step(model, batch))
        finally:
            dist.destroy_process_group()


def _measure_step(model: torch.nn.Module, batch: dict) -> dict:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    results = [_measure_gradient(model, batch, None)]
    for _ in range(2):
        optimizer.step()
        results.append(_measure_gradient(model, batch, None))
    assert all(_whole(parameter.detach()).isfinite().all() for parameter in model.parameters())
    return results[-1]
