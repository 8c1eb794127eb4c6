"""Features of all processes, with exact gradients."""

import torch
import torch.distributed as dist


def num_processes() -> int:
    """Return the number of processes that train together; 1 where nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_batch_sizes(batch_size: int, device: torch.device, *, are_equal: bool = False) -> list[int]:
    """Return the batch size of every process, in order of rank.

    Args:
        batch_size: of this process.
        device: where to exchange sizes; the host waits for it.
        are_equal: all processes are known to have this size, so nothing is exchanged and nothing waits.
    """
    if num_processes() == 1 or are_equal:
        return [batch_size] * num_processes()
    sizes = torch.empty(num_processes(), dtype=torch.long, device=device)
    dist.all_gather(list(sizes.split(1)), torch.tensor([batch_size], device=device))
    return sizes.tolist()


def gather_with_gradient(features: torch.Tensor, batch_sizes: list[int]) -> torch.Tensor:
    """Return the rows of all processes, (sum of batch_sizes, D), in order of rank.

    Every process gets the whole gradient of its own rows: the sum over the processes' losses. Where each process
    computes the same loss over all rows, and gradients are then averaged over processes (as DDP and FSDP do), the
    result is the gradient of one process on the joined batch.

    Args:
        features: (B, D), this process's rows; B may differ between processes.
        batch_sizes: B of every process, from `gather_batch_sizes`.

    Raises:
        ValueError: this process has another B than `batch_sizes` says.
    """
    if len(batch_sizes) == 1:
        return features
    own = batch_sizes[dist.get_rank()]
    if len(features) != own:
        raise ValueError(
            f"Process {dist.get_rank()} has {len(features)} rows where {own} were expected. Processes with different "
            "batches have to exchange their sizes: gather_batch_sizes without are_equal; in a Trainer, "
            'accelerator_config={"even_batches": False}.'
        )
    return _AllGather.apply(features, batch_sizes)


def gather_pairs(
    video_embeds: torch.Tensor, text_embeds: torch.Tensor, batch_sizes: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two (B, P) as `gather_with_gradient` would, each (sum of batch_sizes, P), in one exchange."""
    if len(batch_sizes) == 1:
        return video_embeds, text_embeds
    joined = gather_with_gradient(torch.cat([video_embeds, text_embeds], dim=1), batch_sizes)
    return joined.split([video_embeds.shape[1], text_embeds.shape[1]], dim=1)


class _AllGather(torch.autograd.Function):
    """Rows of all processes; the way back sums what each process wants of them, and cuts out its own."""

    @staticmethod
    def forward(ctx, features: torch.Tensor, batch_sizes: list[int]) -> torch.Tensor:
        ctx.batch_sizes = batch_sizes
        # Collectives want equal shapes: what pads is cut off again.
        padded = features.new_zeros(max(batch_sizes), *features.shape[1:])
        padded[: len(features)] = features
        parts = [torch.empty_like(padded) for _ in batch_sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, batch_sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.batch_sizes)[dist.get_rank()], None


def sum_over_processes(values: list[float], device: torch.device) -> list[float]:
    """Return the sums of all processes' `values`, which lie on `device` on the way."""
    # float32 where an accelerator has nothing wider.
    sums = torch.tensor(values, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    if num_processes() > 1:
        dist.all_reduce(sums)
    return sums.tolist()
