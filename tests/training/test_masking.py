"""Tube masks: the released code's rounding, and one draw for all frames."""

import numpy as np
import pytest

from training.masking import count_masked_patches, draw_tube_mask


@pytest.mark.parametrize("num_patches", [9, 16, 49, 196, 256])
@pytest.mark.parametrize("mask_ratio", [0, 0.1, 0.3, 0.5, 0.7])
def test_as_many_stay_as_the_release_keeps(num_patches, mask_ratio):
    num_kept = int(num_patches * (1 - mask_ratio))
    assert count_masked_patches(num_patches, mask_ratio) == num_patches - num_kept
    mask = draw_tube_mask(num_patches, mask_ratio, np.random.default_rng(0))
    assert mask.shape == (num_patches,) and mask.dtype == bool
    assert mask.sum() == num_patches - num_kept


def test_counts_of_the_paper_s_sizes():
    # int(256 * (1 - 0.7)) is 76, though 0.3 of 256 is 76.8.
    assert [count_masked_patches(*size) for size in ((49, 0.0), (196, 0.5), (256, 0.7))] == [0, 98, 180]


def test_same_generator_same_mask_and_every_patch_has_its_turn():
    draws = [draw_tube_mask(9, 0.5, np.random.default_rng(seed)) for seed in range(60)]
    assert np.array_equal(draws[7], draw_tube_mask(9, 0.5, np.random.default_rng(7)))
    share_masked = np.mean(draws, axis=0)
    assert share_masked.min() > 0.3 and share_masked.max() < 0.8  # 5 of 9 on average


@pytest.mark.parametrize("mask_ratio", [-0.1, 1.0, 1.5, 0.95, float("nan")])
def test_impossible_ratios_name_the_value(mask_ratio):
    with pytest.raises(ValueError, match=r"mask_ratio"):
        count_masked_patches(9, mask_ratio)
