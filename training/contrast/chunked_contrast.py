"""Contrast over batches whose activations would not fit into memory, in the manner of GradCache (arXiv 2101.06983).

The contrastive loss ties all samples together, but through nothing else than their embeddings. So
1. all samples are embedded, a chunk at a time, without keeping a graph;
2. the loss over all embeddings of all processes gives the gradient of each embedding;
3. each chunk is embedded once more, with a graph, and handed its embeddings' gradients, and its sorting loss.
Gradients are those of the whole batch; the price is one more forward pass. Activations take the memory of one chunk.
What grows is the batch itself, which stays in main memory, and a few vectors of P numbers for each sample of all
processes: its two embeddings, their normalised copies, and the gradients of all four.

Axes: B samples of this process, N of all processes, P projection.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from modeling_tvtsv2.modeling_tvtsv2 import TVTSv2ForPreTrainingOutput
from training.contrast.gather import gather_batch_sizes, gather_pairs


def backward_in_chunks(
    model: nn.Module,
    inputs: dict,
    *,
    chunk_size: int,
    temperature: float,
    contrastive_loss_weight: float = 1.0,
    device: torch.device,
    backward: Callable[[torch.Tensor], None],
    no_sync: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    batch_sizes: list[int] | None = None,
    prepare: Callable[[dict], dict] = dict,
) -> TVTSv2ForPreTrainingOutput:
    """Return losses, embeddings and sorting logits of a whole batch, without graph; its gradients are accumulated.

    Averaged over processes, as DDP and FSDP do it, gradients are those of one process on the joined batch. Processes
    may have different B, but each at least one sample.

    Args:
        model: a `TVTSv2ForPreTraining`, or what an engine made of it.
        inputs: its keyword arguments for B samples; they stay where they are, chunks of them go to `device`.
        chunk_size: samples of a chunk.
        temperature, contrastive_loss_weight: of the contrastive loss.
        device: where the model is.
        backward: runs a loss backwards, as `Accelerator.backward`.
        no_sync: context in which gradients are not yet exchanged between processes; only the last chunk is outside.
        batch_sizes: B of every process, where it is known.
        prepare: makes the model's arguments of a chunk's inputs on the device.

    Raises:
        ValueError: a chunk_size below 1.
    """
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
    batch_size = len(inputs["input_ids"])
    sizes = gather_batch_sizes(batch_size, device) if batch_sizes is None else batch_sizes
    chunks = [slice(first, min(first + chunk_size, batch_size)) for first in range(0, batch_size, chunk_size)]
    # Engines meet in every pass: where there are fewer chunks than elsewhere, a sample is repeated, and counts nothing.
    fillers = [slice(0, 1)] * (-(-max(sizes) // chunk_size) - len(chunks))

    states, embeds = [], []
    with torch.no_grad():
        for rows in chunks + fillers:
            states.append(_RandomState(device))
            outputs = model(**prepare(_take(inputs, rows, device)))
            embeds.append((outputs.video_embeds, outputs.text_embeds))
    video_embeds, text_embeds = (torch.cat(parts)[:batch_size].requires_grad_() for parts in zip(*embeds, strict=True))
    contrastive = blockwise_contrastive_loss(*gather_pairs(video_embeds, text_embeds, sizes), temperature)
    weighted = contrastive_loss_weight * contrastive
    video_gradients, text_gradients = torch.autograd.grad(weighted, (video_embeds, text_embeds))

    sorting, logits = None, []
    for number, rows in enumerate(chunks + fillers):
        is_last, is_filler = number == len(states) - 1, number >= len(chunks)
        with contextlib.nullcontext() if is_last else no_sync():
            with states[number].replayed():
                outputs = model(**prepare(_take(inputs, rows, device)))
            # Its gradient is the chain rule's: the loss's gradient times the embeddings'.
            proxy = (outputs.video_embeds * video_gradients[rows]).sum()
            proxy = proxy + (outputs.text_embeds * text_gradients[rows]).sum()
            if outputs.sorting_loss is not None:
                # From a mean over the chunk to its part in the mean over all processes' samples.
                part = outputs.sorting_loss * ((rows.stop - rows.start) * len(sizes) / sum(sizes))
                proxy = proxy + part
                if not is_filler:
                    sorting = part.detach() if sorting is None else sorting + part.detach()
                    logits.append(outputs.sorting_logits.detach())
            backward(proxy * 0 if is_filler else proxy)
    contrastive = contrastive.detach()
    return TVTSv2ForPreTrainingOutput(
        loss=weighted.detach() if sorting is None else weighted.detach() + sorting,
        contrastive_loss=contrastive,
        sorting_loss=sorting,
        video_embeds=video_embeds.detach(),
        text_embeds=text_embeds.detach(),
        sorting_logits=torch.cat(logits) if logits else None,
    )


def blockwise_contrastive_loss(
    video_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float, max_similarities: int = 2**20
) -> torch.Tensor:
    """Return `contrastive_loss` of (N, P) embeddings, `max_similarities` (or N, if that is more) at a time."""
    videos, texts = nn.functional.normalize(video_embeds, dim=-1), nn.functional.normalize(text_embeds, dim=-1)
    block_size = max(1, max_similarities // len(videos))
    total = videos.new_zeros((), dtype=torch.float32)
    for first in range(0, len(videos), block_size):
        # Similarities are computed again on the way back.
        total = total + checkpoint(
            _block_loss, videos, texts, first, block_size, temperature, use_reentrant=False, preserve_rng_state=False
        )
    return total / len(videos)


def _block_loss(
    videos: torch.Tensor, texts: torch.Tensor, first: int, block_size: int, temperature: float
) -> torch.Tensor:
    """Return both directions' cross-entropies of some rows, summed."""
    own = torch.arange(first, min(first + block_size, len(videos)), device=videos.device)
    loss = 0.0
    for queries, keys in ((videos, texts), (texts, videos)):
        similarities = queries[first : first + block_size] @ keys.T
        loss = loss + nn.functional.cross_entropy(similarities.float() / temperature, own, reduction="sum")
    return loss


def _take(inputs: dict, rows: slice, device: torch.device) -> dict:
    return {
        name: value[rows].to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


class _RandomState:
    """The random generators' state now, to draw the same dropout a second time."""

    def __init__(self, device: torch.device):
        self.device = device
        self.cpu = torch.get_rng_state()
        self.accelerator = None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Within, draws repeat those made since; afterwards, the generators go on as if nothing had happened."""
        if self.accelerator is None:
            fork = torch.random.fork_rng(devices=[])
        else:
            fork = torch.random.fork_rng(devices=[self.device], device_type=self.device.type)
        with fork:
            torch.set_rng_state(self.cpu)
            if self.accelerator is not None:
                torch.get_device_module(self.device).set_rng_state(self.accelerator, self.device)
            yield
