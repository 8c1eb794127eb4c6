"""The identity of a model's weights."""

import hashlib

import torch


def hash_weights(model: torch.nn.Module) -> str:
    """Return the SHA-256 of all weights with their names: the same wherever and however they are stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
