"""Saving and loading: the same weights, what may be missing, and what may be left over."""

import pytest
import torch

from modeling_tvtsv2 import (
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from tests.support.library_log import propagating_transformers_log


def assert_same_weights(model, expected: dict[str, torch.Tensor]) -> None:
    actual = model.state_dict()
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor), name


def test_saved_and_loaded_every_bit_is_the_same(tiny_model, tiny_batch, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded, report = TVTSv2ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert not loaded.training
    assert_same_weights(loaded, tiny_model.state_dict())
    assert torch.equal(loaded(**tiny_batch).loss, tiny_model(**tiny_batch).loss)


@pytest.mark.parametrize("saved", [torch.bfloat16, torch.float32])
def test_the_saved_dtype_is_the_default_and_any_other_can_be_had(tiny_model, tmp_path, saved):
    tiny_model.to(saved).save_pretrained(tmp_path)
    assert TVTSv2ForPreTraining.from_pretrained(tmp_path).dtype == saved
    assert TVTSv2ForPreTraining.from_pretrained(tmp_path, dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("prefix", ["vision_model", "text_model"])
def test_a_tower_loads_its_part_of_a_whole_model(tiny_model, tmp_path, prefix):
    tiny_model.save_pretrained(tmp_path / "whole")
    tower_class = {"vision_model": TVTSv2VisionModel, "text_model": TVTSv2TextModel}[prefix]
    tower, report = tower_class.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(report.values()), "the rest of the model is nothing to report"
    assert_same_weights(tower, getattr(tiny_model, prefix).state_dict())
    tower.save_pretrained(tmp_path / "tower")
    again, report = tower_class.from_pretrained(tmp_path / "tower", output_loading_info=True)
    assert not any(report.values())
    assert_same_weights(again, tower.state_dict())


@pytest.mark.parametrize("model_class", [TVTSv2Model, TVTSv2ForVideoClassification])
def test_a_pre_training_checkpoint_loads_for_use(tiny_model, tmp_path, model_class, caplog):
    tiny_model.save_pretrained(tmp_path)
    with propagating_transformers_log():
        loaded, report = model_class.from_pretrained(tmp_path, output_loading_info=True)
    is_classifier = model_class is TVTSv2ForVideoClassification
    assert report["missing_keys"] == ({"classifier.weight", "classifier.bias"} if is_classifier else set())
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert "sorter" not in caplog.text and "UNEXPECTED" not in caplog.text
    for name, tensor in loaded.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(tensor, tiny_model.state_dict()[name]), name


def test_the_vocabulary_can_grow(tiny_model, tiny_batch, tmp_path):
    expected = tiny_model(**tiny_batch).loss
    tiny_model.resize_token_embeddings(44)
    assert tiny_model.config.text_config.vocab_size == 44
    assert torch.equal(tiny_model(**tiny_batch).loss, expected)
    tiny_model.save_pretrained(tmp_path)
    loaded = TVTSv2ForPreTraining.from_pretrained(tmp_path)
    assert_same_weights(loaded, tiny_model.state_dict())
