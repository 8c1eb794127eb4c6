"""Top-1, top-5 and mean per class of recognition, as an `evaluate` metric.

metric = evaluate.load("benchmarks/metrics/recognition")
metric.compute(predictions=scores, references=labels)
"""

import datasets
import evaluate
import numpy as np

from benchmarks.evaluation.protocols.recognition_metrics import label_ranks, recognition_metrics

_DESCRIPTION = """\
How often a video's own class has the highest score, or one of the five highest; the mean over classes of the former.

Ties count as the mean of the ranks they could get, so that a model that scores all classes alike is at chance.
"""

_INPUTS = """\
Args:
    predictions: for each video a score for every class, finite, at least two classes.
    references: for each video its class, an index into the scores.

Returns:
    `top_1`, `top_5`: shares of videos, in [0, 1].
    `mean_per_class`: the mean of the classes' own top-1; classes without a video are left out.

Raises:
    ValueError: rows of different lengths, one class only, labels out of range, or scores that are not finite.

Example:
    >>> metric = evaluate.load("benchmarks/metrics/recognition")
    >>> metric.compute(predictions=[[0.9, 0.1], [0.8, 0.3]], references=[0, 1])["top_1"]
    0.5
"""


class Recognition(evaluate.Metric):
    """The metric; see `_DESCRIPTION` and `_INPUTS`."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=features)

    def _compute(self, predictions, references):
        lengths = sorted({len(row) for row in predictions})
        if len(lengths) != 1:
            raise ValueError(f"Every video needs a score for every class, got rows of {lengths} numbers.")
        labels = np.asarray(references)
        return recognition_metrics(label_ranks(np.asarray(predictions, dtype=np.float64), labels), labels)
