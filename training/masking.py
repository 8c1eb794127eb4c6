"""Tube masks: the same patches dropped from every frame of a video, so that nothing of a place leaks through time."""

import numpy as np


def count_masked_patches(num_patches: int, mask_ratio: float) -> int:
    """Return how many of a frame's `num_patches` a mask of ratio [0, 1) drops; `int(num_patches * (1 - ratio))` stay.

    Raises:
        ValueError: a ratio outside [0, 1), or one that would leave no patch.

    Source: paper, section 3.4; the rounding is the released code's.
    """
    num_kept = int(num_patches * (1 - mask_ratio)) if 0 <= mask_ratio < 1 else 0
    if num_kept < 1:
        raise ValueError(f"mask_ratio must lie in [0, 1) and leave one of {num_patches} patches, got {mask_ratio}.")
    return num_patches - num_kept


def draw_tube_mask(num_patches: int, mask_ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Return bool (num_patches,): True for the patch positions that are dropped from every frame of one video."""
    masked = np.zeros(num_patches, dtype=bool)
    masked[generator.permutation(num_patches)[: count_masked_patches(num_patches, mask_ratio)]] = True
    return masked
