"""Rows of all processes in order of rank, and their whole gradients."""

import pytest
import torch

from tests.support.distributed_steps import steps_in_processes
from training.contrast.gather import gather_batch_sizes, gather_with_gradient, num_processes


def test_one_process_gathers_nothing():
    rows = torch.randn(3, 2, requires_grad=True)
    assert num_processes() == 1
    assert gather_batch_sizes(3, rows.device) == [3]
    assert gather_with_gradient(rows, [3]) is rows


@pytest.mark.parametrize("batch_sizes", [(3, 2), (2, 1, 3)])
def test_rows_and_gradients_of_real_processes(batch_sizes):
    processes = steps_in_processes(batch_sizes)
    expected = torch.cat([10 * rank + torch.arange(float(size)) for rank, size in enumerate(batch_sizes)])
    first = 1
    for seen, size in zip(processes, batch_sizes, strict=True):
        assert seen["gather"]["sizes"] == list(batch_sizes)
        assert torch.equal(seen["gather"]["joined"], expected[:, None].repeat(1, 2))
        # Row j weighs j, times 1 + 2 + … over the processes' losses.
        weights = torch.arange(float(first), first + size) * sum(range(1, len(batch_sizes) + 1))
        assert torch.equal(seen["gather"]["gradient"], weights[:, None].repeat(1, 2))
        first += size
