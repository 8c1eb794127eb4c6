"""What a training step keeps in an accelerator's memory: measured on a model without memory (the meta device).

Counted are the tensors that autograd keeps for the way back, for one video, times the videos at once. Not counted:
allocator waste, the framework's own few hundred MiB, and one layer's temporary tensors.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_tvtsv2 import TVTSv2ForPreTraining

# Parameters, gradients and AdamW's two moments are float32 (mixed precision casts on the way), so 4 bytes each.
_BYTES = 4


class _FusedAttention(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps: inputs, output, one number a query; never the scores."""

    @staticmethod
    def forward(ctx, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query.transpose(1, 2).contiguous())
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1]))
        return output

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        raise NotImplementedError("Nothing goes back: only what is kept on the way there is counted.")


def _fused_attention(module, query, key, value, attention_mask, **kwargs):
    return _FusedAttention.apply(query, key, value), None


AttentionInterface.register("memory_estimate", _fused_attention)


def state_bytes(model: nn.Module) -> dict[str, int]:
    """Return the bytes of `parameters`, of `gradients` and of AdamW's `optimizer` state, unsharded."""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    total = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": _BYTES * total, "gradients": _BYTES * trained, "optimizer": 2 * _BYTES * trained}


def activation_bytes(
    model: TVTSv2ForPreTraining,
    *,
    num_masked_patches: int,
    num_transcripts: int,
    num_tokens: int,
    checkpointing: bool = False,
    bytes_per_number: int = 4,
) -> int:
    """Return the bytes that one video and its transcripts keep until the backward pass.

    Args:
        model: on the meta device, with attention "memory_estimate"; `requires_grad` flags say what is trained.
        num_masked_patches: of each frame.
        num_transcripts, num_tokens: K, and L of each.
        checkpointing: blocks keep their input alone, and one block at a time the rest.
        bytes_per_number: 4 for float32, 2 for bfloat16.
    """
    vision = model.config.vision_config
    shape = (1, vision.num_frames, vision.num_channels, vision.image_size, vision.image_size)
    inputs = {
        "pixel_values_videos": torch.empty(shape, device="meta"),
        "input_ids": torch.zeros(1, num_transcripts, num_tokens, dtype=torch.long, device="meta"),
        "sorting_labels": torch.zeros(1, num_transcripts, dtype=torch.long, device="meta"),
    }
    if num_masked_patches:
        inputs["bool_masked_pos"] = torch.zeros(1, vision.num_patches, dtype=torch.bool, device="meta")
        inputs["num_masked_patches"] = num_masked_patches
    blocks = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    kept: dict[nn.Module | None, dict[int, torch.UntypedStorage]] = {None: {}, **{block: {} for block in blocks}}
    # Storages are held, so that no two get the same address.
    known = {parameter.untyped_storage()._cdata: parameter.untyped_storage() for parameter in model.parameters()}
    with _watched(blocks) as inside:

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in known:
                known[storage._cdata] = kept[inside[-1]][storage._cdata] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train()(**inputs)
    sizes = {block: sum(storage.nbytes() for storage in storages.values()) for block, storages in kept.items()}
    in_blocks = [sizes[block] for block in blocks]
    if checkpointing and in_blocks:
        tokens = 1 + vision.num_frames * (vision.num_patches - num_masked_patches)
        entrances = len(model.vision_model.encoder.layers) * tokens * vision.hidden_size
        text = model.config.text_config
        entrances += text.num_hidden_layers * num_transcripts * num_tokens * text.hidden_size
        return (sizes[None] + max(in_blocks) + entrances * 4) * bytes_per_number // 4
    return (sizes[None] + sum(in_blocks)) * bytes_per_number // 4


@contextlib.contextmanager
def _watched(blocks: list[nn.Module]) -> Iterator[list[nn.Module | None]]:
    """Within, the last item of the list is the block that is running, or None."""
    inside: list[nn.Module | None] = [None]
    handles = []
    for block in blocks:
        handles.append(block.register_forward_pre_hook(lambda module, _: inside.append(module)))
        handles.append(block.register_forward_hook(lambda *_: inside.pop() and None))
    yield inside
    for handle in handles:
        handle.remove()
