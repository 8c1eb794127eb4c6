"""What callers may pass to the models, and what they get back."""

import logging

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
from tests.support.tiny_models import make_tiny_config, randomized

# --- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, b: m(**b, mask=None), r"TVTSv2ForPreTraining.forward\(\) .* 'mask'; .* bool_masked_pos"),
        (
            lambda m, b: TVTSv2Model(m.config)(b["input_ids"][:, 0], b["pixel_values_videos"], attn_mask=1, loss=1),
            r"TVTSv2Model.forward\(\) .* 'attn_mask', 'loss'; it takes input_ids, pixel_values_videos, attention_mask",
        ),
        (
            lambda m, b: m.get_video_features(b["pixel_values_videos"], class_only=True),
            "'class_only'.* class_token_only",
        ),
        (lambda m, b: m.get_text_features(b["input_ids"][:, 0], position_ids=0), r"'position_ids'; it takes input_ids"),
        (
            lambda m, b: TVTSv2ForVideoClassification(m.config)(b["pixel_values_videos"], label=0),
            r"TVTSv2ForVideoClassification.forward\(\) .* 'label'; .* labels",
        ),
    ],
)
def test_misspelt_arguments_are_errors_that_name_them(tiny_model, tiny_batch, call, message):
    with pytest.raises(TypeError, match=message):
        call(tiny_model, tiny_batch)


def test_what_transformers_passes_to_every_model_still_passes(tiny_model, tiny_batch):
    flags = {"output_attentions": None, "output_hidden_states": False, "return_dict": False, "num_items_in_batch": 2}
    assert isinstance(tiny_model(**tiny_batch, **flags), tuple)
    pixels = tiny_batch["pixel_values_videos"]
    classifier = TVTSv2ForVideoClassification(tiny_model.config)
    num_states = 1 + tiny_model.config.vision_config.num_hidden_layers
    for outputs in (
        tiny_model.get_video_features(pixels, output_hidden_states=True, num_items_in_batch=None),
        tiny_model.get_video_features(pixels, output_hidden_states=True, use_cache=False, is_causal=None),
        classifier(pixels, output_hidden_states=True),
    ):
        assert len(outputs.hidden_states) == num_states


# --- outputs ---


def test_outputs_as_a_tuple(tiny_model, tiny_batch):
    outputs = tiny_model(**tiny_batch).to_tuple()
    assert isinstance(outputs[-1], tuple) and isinstance(outputs[-2], tuple)  # the towers' outputs
    torch.testing.assert_close(tiny_model(**tiny_batch, return_dict=False), outputs, rtol=0, atol=0)


def test_hidden_states_are_those_between_the_blocks():
    config = make_tiny_config(vision={"num_hidden_layers": 2, "post_layernorm_scope": "pooled"})
    model = randomized(TVTSv2Model(config)).eval()
    pixels = torch.randn(2, 3, 3, 24, 24)
    outputs = model.get_video_features(pixels, output_hidden_states=True)
    tower = model.vision_model
    states = [tower.pre_layrnorm(tower.embeddings(pixels))]
    for layer in tower.encoder.layers:
        states.append(layer(states[-1], 3)[0])
    assert len(outputs.hidden_states) == 3
    for actual, expected in zip(outputs.hidden_states, states, strict=True):
        torch.testing.assert_close(actual, expected)
    assert torch.equal(outputs.last_hidden_state, outputs.hidden_states[-1])  # "pooled": no norm over the tokens
    assert model.get_video_features(pixels).hidden_states is None


@pytest.mark.parametrize("num_transcripts", [1, 4])
def test_both_towers_outputs_are_carried(tiny_model, tiny_batch, num_transcripts):
    tiny_batch["input_ids"] = tiny_batch["input_ids"][:, :num_transcripts]
    if num_transcripts == 1:
        del tiny_batch["sorting_labels"]
    outputs = tiny_model(**tiny_batch, output_hidden_states=True)
    text, video = outputs.text_model_output, outputs.vision_model_output
    assert torch.equal(text.pooler_output.view(2, num_transcripts, -1).mean(dim=1), outputs.text_embeds)
    assert torch.equal(video.pooler_output, outputs.video_embeds)
    assert [states.shape for states in video.hidden_states] == [(2, 1 + 3 * 5, 32)] * 2
    assert [states.shape for states in text.hidden_states] == [(2 * num_transcripts, 10, 24)] * 2

    model = TVTSv2Model(tiny_model.config)
    ids, pixels = tiny_batch["input_ids"][:, 0], tiny_batch["pixel_values_videos"]
    outputs = model(ids, pixels, output_hidden_states=True)
    assert torch.equal(outputs.text_model_output.pooler_output, outputs.text_embeds)
    assert torch.equal(outputs.vision_model_output.pooler_output, outputs.video_embeds)
    assert outputs.vision_model_output.hidden_states[-1].shape == (2, 1 + 3 * 9, 32)
    assert model(ids, pixels).vision_model_output.hidden_states is None


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attentions_of_both_kinds_are_returned(implementation):
    config = make_tiny_config(vision={"num_hidden_layers": 2}, num_labels=3)
    model = randomized(TVTSv2ForVideoClassification(config)).eval()
    model.set_attn_implementation(implementation)
    pixels = torch.randn(2, 3, 3, 24, 24)
    video = model.vision_model(pixels, output_attentions=True)
    assert [len(video.attentions), len(video.temporal_attentions)] == [2, 2]
    for weights, is_linked in (
        (video.attentions[1], lambda a, b: a // 9 == b // 9),
        (video.temporal_attentions[1], lambda a, b: a % 9 == b % 9),
    ):
        assert weights.shape == (2, 4, 28, 28)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 28))
        assert (weights[:, :, 0] > 0).all() and (weights[:, :, :, 0] > 0).all()  # the class token
        patch = torch.arange(27)
        expected = is_linked(patch[:, None], patch)
        assert torch.equal(weights[:, :, 1:, 1:] > 0, expected.expand(2, 4, -1, -1))
    torch.testing.assert_close(video.last_hidden_state, model.vision_model(pixels).last_hidden_state)
    outputs = model(pixels, output_attentions=True, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, model(pixels).logits)
    assert [weights.shape for weights in outputs.attentions] == [(2, 4, 28, 28)] * 2
    assert {states.shape for states in outputs.hidden_states} == {(2, 28, 32)}


def test_text_attentions_come_from_eager_attention(tiny_model, tiny_batch, caplog):
    ids = tiny_batch["input_ids"][:, 0]
    tiny_model.set_attn_implementation("sdpa")
    logging.Logger.warning_once.cache_clear()  # another test of this process may have had the warning
    with propagating_transformers_log():
        assert tiny_model.get_text_features(ids, output_attentions=True).attentions == ()
    assert "under eager attention only, not under 'sdpa'; call model.set_attn_implementation" in caplog.text
    tiny_model.set_attn_implementation("eager")
    outputs = tiny_model(**tiny_batch, output_attentions=True)
    assert [weights.shape for weights in outputs.text_model_output.attentions] == [(8, 3, 10, 10)]
    assert [weights.shape for weights in outputs.vision_model_output.attentions] == [(2, 4, 16, 16)]


def test_what_a_class_s_callers_ask_it_for(tiny_config):
    assert tiny_config.num_frames == tiny_config.vision_config.num_frames == 4
    for model, name, embeddings in (
        (TVTSv2Model(tiny_config), "input_ids", "token_embedding"),
        (TVTSv2ForPreTraining(tiny_config), "pixel_values_videos", "token_embedding"),
        (TVTSv2ForVideoClassification(tiny_config), "pixel_values_videos", "patch_embedding"),
        (TVTSv2VisionModel(tiny_config.vision_config), "pixel_values_videos", "patch_embedding"),
        (TVTSv2TextModel(tiny_config.text_config), "input_ids", "token_embedding"),
    ):
        assert model.main_input_name == name
        found = model.get_input_embeddings()
        assert next(path for path, module in model.named_modules() if module is found).endswith(embeddings)
        model.set_input_embeddings(found)
        assert model.get_input_embeddings() is found


@pytest.mark.parametrize(
    ("problem_type", "labels", "loss"),
    [
        ("single_label_classification", torch.tensor([2, 0]), torch.nn.functional.cross_entropy),
        (
            "multi_label_classification",
            torch.tensor([[0.0, 1, 1], [1, 0, 0]]),
            torch.nn.functional.binary_cross_entropy_with_logits,
        ),
        ("regression", torch.tensor([[0.3, 1, -1], [1, 0.5, 0]]), torch.nn.functional.mse_loss),
    ],
)
def test_classification_losses_follow_the_problem_type(problem_type, labels, loss):
    model = TVTSv2ForVideoClassification(make_tiny_config(num_labels=3, problem_type=problem_type)).eval()
    outputs = model(torch.randn(2, 3, 3, 24, 24), labels)
    torch.testing.assert_close(outputs.loss, loss(outputs.logits, labels))


def test_labels_and_towers_may_be_on_other_devices(tiny_model, tiny_batch):
    """The device "meta" refuses what is elsewhere, as a second GPU would."""
    pixels = tiny_batch.pop("pixel_values_videos").detach().to("meta")
    for name, module in tiny_model.named_children():
        module.to("cpu" if name.startswith("text") else "meta")
    masked = tiny_batch.pop("bool_masked_pos").to("meta")
    loss = tiny_model(pixels, **tiny_batch, bool_masked_pos=masked, num_masked_patches=4).loss
    assert loss.device.type == "meta" and tiny_batch["sorting_labels"].device.type == "cpu"
    for problem_type, labels in (
        ("single_label_classification", torch.tensor([2, 0])),
        ("multi_label_classification", torch.ones(2, 3)),
        ("regression", torch.ones(2, 3)),
    ):
        model = TVTSv2ForVideoClassification(make_tiny_config(num_labels=3, problem_type=problem_type)).to("meta")
        assert model(pixels, labels).loss.device.type == "meta"


def test_classification_reads_the_video_embedding(tiny_model):
    config = make_tiny_config(num_labels=3)
    model = TVTSv2ForVideoClassification(config).eval()
    model.load_state_dict({n: t for n, t in tiny_model.state_dict().items() if n.startswith("vis")}, strict=False)
    pixels, labels = torch.randn(2, 3, 3, 24, 24), torch.tensor([2, 0])
    outputs = model(pixels, labels)
    embeds = tiny_model.get_video_features(pixels).pooler_output
    torch.testing.assert_close(outputs.logits, embeds @ model.classifier.weight.T + model.classifier.bias)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, labels))
    assert model(pixels).loss is None
