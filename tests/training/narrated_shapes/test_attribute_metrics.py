"""Metrics by attribute, against results worked out by hand, and on a model that has seen nothing."""

import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2Model
from training.arguments import ModelArguments
from training.narrated_shapes.attribute_metrics import (
    evaluate_attributes,
    group_recall,
    linear_probe,
    precision_at,
)
from training.narrated_shapes.captions import ATTRIBUTES
from training.narrated_shapes.corpus import build_corpus
from training.narrated_shapes.scripts import NUM_CLIPS_PER_ROUND, CorpusConfig
from training.pretraining_setup import build_processor


def test_precision_by_hand():
    similarities = torch.tensor([[0.9, 0.8, 0.1, 0.2], [0.9, 0.1, 0.8, 0.2]])
    precision = precision_at(2, similarities, np.array([0, 1, 1, 1]))
    # The first query finds clips 0 and 1, of which one shows value 0; the second clips 0 and 2, of which one shows 1.
    assert precision == {"model": 0.5, "chance": 0.5}


def test_chance_of_precision_is_the_mean_share_of_the_values():
    assert precision_at(1, torch.eye(2, 3), np.array([0, 0, 1]))["chance"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_probe_separates_what_is_linear_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(400, 16, generator=generator)
    labels = embeds[:, :4].argmax(dim=1).numpy()
    probe = linear_probe(embeds[:200], labels[:200], embeds[200:], labels[200:], 4)
    assert probe["model"] > 0.8
    assert probe["chance"] == pytest.approx(np.bincount(labels[200:]).max() / 200)
    blind = linear_probe(torch.randn(200, 16, generator=generator), labels[:200], embeds[200:], labels[200:], 4)
    assert blind["model"] < 0.4


def test_recall_compares_within_groups_only():
    similarities = torch.tensor(
        [[0.5, 0.1, 0.9, 0.9], [0.6, 0.5, 0.9, 0.9], [0.9, 0.9, 0.2, 0.1], [0.9, 0.9, 0.1, 0.0]]
    )
    recall = group_recall(similarities, ["shape0", "shape0", "shape1", ""])
    assert recall == {"model": 0.5, "chance": 0.5}  # a group of one clip does not count


def test_an_untrained_model_is_measured_on_every_attribute(tmp_path):
    config = CorpusConfig(
        num_train_videos=2, num_heldout_videos=0, num_train_captions=40, num_heldout_captions=NUM_CLIPS_PER_ROUND
    )
    corpus = build_corpus(tmp_path / "corpus", config, num_workers=1)
    torch.manual_seed(0)
    tiny = TVTSv2Config.from_preset("tiny")
    processor = build_processor(ModelArguments(), tiny, corpus.training_texts())
    model = TVTSv2Model._from_config(tiny)
    metrics = evaluate_attributes(model, processor, corpus)
    assert set(metrics) == set(ATTRIBUTES)
    assert model.training
    for attribute, values in ATTRIBUTES.items():
        assert set(metrics[attribute]) == {"precision@5", "linear_probe", "group_R@1"}
        assert metrics[attribute]["precision@5"]["chance"] == pytest.approx(1 / len(values))
        assert metrics[attribute]["group_R@1"]["chance"] == pytest.approx(1 / len(values))
        assert all(0 <= metric["model"] <= 1 for metric in metrics[attribute].values())


def test_what_is_not_finite_has_no_metrics():
    broken, labels = torch.full((4, 4), float("nan")), np.array([0, 1, 0, 1])
    for metric in (
        lambda: precision_at(1, broken, labels),
        lambda: linear_probe(torch.eye(4), labels, broken, labels, 2),
        lambda: group_recall(broken, ["a", "a", "b", "b"]),
    ):
        with pytest.raises(FloatingPointError, match="not finite"):
            metric()
