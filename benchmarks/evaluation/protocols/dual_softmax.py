"""Dual softmax: similarities re-weighted by how much a candidate prefers a query among all queries.

It needs every query of the test set at once, which a search engine never has, so its metrics stand beside the plain
ones and never instead.

Axes: Q queries, C candidates.
Source: Cheng et al. 2021, arXiv 2109.04290, section 3.3: S * softmax over queries of S, S in units of a temperature.
"""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.evaluation.protocols.similarity_blocks import Block

NOTE = "needs all queries of the test set at once"


def dual_softmax_blocks(make_blocks: Callable[[], Iterator[Block]], temperature: float) -> Iterator[Block]:
    """Yield re-weighted similarities, float64, in two passes: all queries for the sums over them, then block by block.

    Args:
        make_blocks: starts the similarities again, each time it is called.
        temperature: they are divided by it, > 0.

    Raises:
        ValueError: the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"The temperature of the dual softmax must be positive, got {temperature!r}.")
    log_sums = None
    for block, _ in make_blocks():
        logits = block / temperature
        largest = logits.max(axis=0)
        sums = largest + np.log(np.exp(logits - largest).sum(axis=0))
        log_sums = sums if log_sums is None else np.logaddexp(log_sums, sums)
    for block, numbers in make_blocks():
        logits = block / temperature
        yield logits * np.exp(logits - log_sums), numbers
