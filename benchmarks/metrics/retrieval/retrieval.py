"""Recall@k, median and mean rank of cross-modal retrieval, as an `evaluate` metric.

metric = evaluate.load("benchmarks/metrics/retrieval")
metric.compute(predictions=similarities, references=right_candidates)
"""

import datasets
import evaluate
import numpy as np

from training.evaluation import rank_metrics, retrieval_ranks

_DESCRIPTION = """\
Where in the order of similarity a query finds its right candidate: recall at 1, 5, 10 and 50, median and mean rank.

With several right candidates the best one counts, and the other right ones are not in its way. Ties count as the mean
of the ranks they could get, so that a model for which everything is alike is at chance.
"""

_INPUTS = """\
Args:
    predictions: for each query its similarities to all candidates, the same number for every query, finite.
    references: for each query the indices of its right candidates, at least one.

Returns:
    `R@1`, `R@5`, `R@10`, `R@50`: share of queries with a rank up to k, in [0, 1].
    `median_rank`, `mean_rank`: from 1; halves where an odd number of candidates ties.

Raises:
    ValueError: rows of different lengths, similarities that are not finite, a query without right candidate, or an
        index out of range.

Example:
    >>> metric = evaluate.load("benchmarks/metrics/retrieval")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.8, 0.3]], references=[[0], [1]])["R@1"]
    0.5
"""


class Retrieval(evaluate.Metric):
    """The metric; see `_DESCRIPTION` and `_INPUTS`."""

    def _info(self):
        features = datasets.Features(
            {
                "predictions": datasets.Sequence(datasets.Value("float64")),
                "references": datasets.Sequence(datasets.Value("int64")),
            }
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions, references):
        lengths = sorted({len(row) for row in predictions})
        if len(lengths) != 1:
            raise ValueError(f"Every query needs a similarity to every candidate, got rows of {lengths} numbers.")
        is_right = np.zeros((len(predictions), lengths[0]), dtype=bool)
        for query, candidates in enumerate(references):
            wrong = [candidate for candidate in candidates if not 0 <= candidate < lengths[0]]
            if wrong:
                raise ValueError(
                    f"Query {query} has the right candidate {wrong[0]}, but there are 0..{lengths[0] - 1}."
                )
            is_right[query, list(candidates)] = True
        return rank_metrics(retrieval_ranks(np.asarray(predictions, dtype=np.float64), is_right))
