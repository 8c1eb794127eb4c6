"""Features of all processes, with exact gradients."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional


def num_processes() -> int:
    """Returns the number of processes that train together; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_batch_sizes(batch_size: int, device: torch.device) -> list[int]:
    """Returns the batch size of every process, in order of rank."""
    if num_processes() == 1:
        return [batch_size]
    sizes = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(num_processes())]
    dist.all_gather(sizes, torch.tensor([batch_size], device=device))
    return [int(size) for size in sizes]


def gather_with_gradient(features: torch.Tensor, batch_sizes: list[int]) -> torch.Tensor:
    """Returns the rows of all processes, (sum of batch_sizes, D), in order of rank.

    Every process gets the whole gradient of its own rows: the sum over the processes' losses. Where each process
    computes the same loss over all rows, and gradients are then averaged over processes (as DDP and FSDP do), the
    result is the gradient of one process on the joined batch.

    Args:
        features: (B, D), this process's rows; B may differ between processes.
        batch_sizes: B of every process, from `gather_batch_sizes`.
    """
    if len(batch_sizes) == 1:
        return features
    # Collectives want equal shapes; what pads is cut off again and so gets no gradient.
    padding = features.new_zeros(max(batch_sizes) - len(features), *features.shape[1:])
    parts = dist_functional.all_gather(torch.cat([features, padding]))
    return torch.cat([part[:size] for part, size in zip(parts, batch_sizes, strict=True)])


def sum_over_processes(values: list[float], device: torch.device) -> list[float]:
    """Returns the sums of all processes' `values`, which lie on `device` on the way."""
    # float32 where an accelerator has nothing wider.
    sums = torch.tensor(values, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    if num_processes() > 1:
        dist.all_reduce(sums)
    return sums.tolist()
