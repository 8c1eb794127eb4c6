"""What is measured of embeddings: metrics beside an oracle, and intervals over seeds."""

import dataclasses
import re

import numpy as np
import pytest

from benchmarks.study.drawing import DIRECTIONS
from benchmarks.study.evaluation import direction_accuracy, order_accuracy, probe_order, recall_at_1, sentences
from benchmarks.study.sentences import SHAPE_NAMES, Attributes
from benchmarks.study.summary import summarize, summarize_differences
from benchmarks.study.synthetic_videos import CLASSES
from tests.benchmarks.study.conftest import SEED


class Oracle:
    """Knows what clips show and reads captions. Order: first events count once, second events twice."""

    def __init__(self, knows_order: bool = True):
        self.weights = (1.0, 2.0) if knows_order else (1.0, 1.0)
        self.attributes = [(name, value) for name, values in CLASSES.items() for value in values]

    def embed(self, events: list[Attributes]) -> np.ndarray:
        vectors = [[float(getattr(each, name) == value) for name, value in self.attributes] for each in events]
        # Pairs, so that a red star and a blue ring are not a blue star and a red ring.
        total = sum(weight * np.outer(v, v).ravel() for weight, v in zip(self.weights, vectors, strict=False))
        return total / np.linalg.norm(total)

    def clips(self, clips) -> np.ndarray:
        events = [[dataclasses.replace(e, place="") for e in each] if len(each) > 1 else each for each in clips.events]
        return np.stack([self.embed(each) for each in events])

    def texts(self, texts: list[str]) -> np.ndarray:
        return np.stack([self.embed([self.read(part) for part in self.split(text.lower())]) for text in texts])

    @staticmethod
    def split(text: str) -> list[str]:
        return re.split(r", then | and after that | before ", text)

    @staticmethod
    def read(phrase: str) -> Attributes:
        words = set(re.findall(r"\w+", phrase))
        shape = next(name for name, said in SHAPE_NAMES.items() if words & set(said))
        motion = next(name for name in DIRECTIONS if name in words)
        place = next((name for name in CLASSES["place"] if name in words), "")
        return Attributes(next(name for name in CLASSES["color"] if name in words), shape, motion, place)


def test_an_oracle_knows_the_order_and_a_bag_of_words_does_not(synthetic):
    assert order_accuracy(Oracle(), synthetic.test_ordered) == 100
    assert order_accuracy(Oracle(knows_order=False), synthetic.test_ordered) == 50


@pytest.mark.parametrize("weights, right", [((1, -1), 100), ((1, 1), 50)])
def test_a_probe_reads_the_order_of_events_and_not_from_a_bag_of_words(synthetic, weights, right):
    one_hot, colors = np.eye(8, dtype=np.float32), CLASSES["color"]

    def embed(clips):
        return np.stack(
            [
                sum(w * one_hot[colors.index(e.color)] for w, e in zip(weights, pair, strict=True))
                for pair in clips.events
            ]
        )

    assert probe_order(embed, synthetic.test_ordered, synthetic.test_ordered, 2) == pytest.approx(right, abs=15)


def test_an_oracle_knows_directions_and_who_sees_none_does_not(synthetic):
    class Blind(Oracle):
        def clips(self, clips):
            events = [[dataclasses.replace(attributes, motion="") for attributes in each] for each in clips.events]
            return np.stack([self.embed(each) for each in events])

    assert direction_accuracy(Oracle(), synthetic.test) == 100
    assert direction_accuracy(Blind(), synthetic.test) == 50


def test_an_oracle_retrieves_everything_and_a_constant_model_nothing(synthetic):
    oracle = Oracle()
    videos = oracle.clips(synthetic.test)
    texts = oracle.texts(sentences([attributes for (attributes,) in synthetic.test.events], "caption"))
    assert recall_at_1(texts, videos) == 100
    assert recall_at_1(texts[::-1], videos) < 5
    same = np.ones((144, 4)) / 2
    assert recall_at_1(same, same) == 0


def test_averaged_frames_stand_for_a_clip_of_mini_clip(study_folder, synthetic):
    start = study_folder.start(study_folder.clip(SEED))
    frames = [dataclasses.replace(synthetic.test, frames=synthetic.test.frames[:, [t]]) for t in range(4)]
    mean = np.mean([start.clips(each) for each in frames], axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(start.clips(synthetic.test), mean, atol=1e-5)


@pytest.mark.parametrize("num, quantile", [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_intervals_are_students(num, quantile):
    """97.5 % quantiles as in the tables of every textbook."""
    values = np.random.default_rng(num).normal(50, 3, num)
    summary = summarize(list(values))
    assert summary["seeds"] == num
    assert summary["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert summary["half_width"] == pytest.approx(quantile * values.std(ddof=1) / num**0.5, rel=3e-4)


def test_differences_are_paired_by_seed():
    own, reference = {0: 10.0, 1: 20.0, 2: 30.0}, {2: 29.0, 1: 19.0, 0: 9.0, 7: 0.0}
    assert summarize_differences(own, reference) == {"mean": 1.0, "half_width": 0.0, "seeds": 3}
    assert summarize_differences({5: 1.0}, reference) is None
