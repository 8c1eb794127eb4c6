"""The `evaluate` metrics load from their folders, equal the functions they wrap, and check their input."""

import evaluate
import numpy as np
import pytest

from benchmarks.evaluation.protocols.recognition_metrics import label_ranks, recognition_metrics
from tests.support.paths import ROOT
from training.evaluation import rank_metrics, retrieval_ranks

METRICS = ROOT / "benchmarks" / "metrics"


@pytest.fixture
def load(tmp_path):
    return lambda name: evaluate.load(str(METRICS / name), cache_dir=str(tmp_path))


def test_retrieval(load):
    similarities = np.random.default_rng(0).normal(size=(20, 10))
    references = [[query % 10, (query + 3) % 10] for query in range(20)]
    metric = load("retrieval")
    metric.add_batch(predictions=similarities[:7].tolist(), references=references[:7])
    metric.add_batch(predictions=similarities[7:].tolist(), references=references[7:])
    is_right = np.zeros((20, 10), bool)
    is_right[np.arange(20)[:, None], references] = True
    assert metric.compute() == rank_metrics(retrieval_ranks(similarities, is_right))
    assert "Ties count as the mean" in metric.description


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[0.1, 0.2], [0.3]], [[0], [0]], "rows of \\[1, 2\\] numbers"),
        ([[0.1, 0.2]], [[2]], "right candidate 2, but there are 0..1"),
        ([[0.1, 0.2]], [[]], "no right candidate"),
        ([[0.1, float("nan")]], [[0]], "not finite"),
    ],
)
def test_retrieval_checks_its_input(load, predictions, references, message):
    with pytest.raises(ValueError, match=message):
        load("retrieval").compute(predictions=predictions, references=references)


def test_recognition(load):
    scores, labels = np.random.default_rng(0).normal(size=(30, 8)), np.arange(30) % 8
    computed = load("recognition").compute(predictions=scores.tolist(), references=labels.tolist())
    assert computed == recognition_metrics(label_ranks(scores, labels), labels)


def test_recognition_checks_its_input(load):
    with pytest.raises(ValueError, match="one class only"):
        load("recognition").compute(predictions=[[0.4], [0.6]], references=[0, 0])
