"""The whole model: the release's numbers, every attention backend and way of running, saving and loading, errors."""

import contextlib
import logging

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

import modeling_tvtsv2
from modeling_tvtsv2 import (
    TVTSv2Config,
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from modeling_tvtsv2.convert_checkpoint import convert_official_state_dict, converted_names
from tests.conftest import make_tiny_batch, make_tiny_config, randomized
from tests.support import reference_tvtsv2 as reference
from tests.support.deterministic_weights import (
    FAMILIES,
    GOLDEN,
    golden_config,
    golden_eval_ids,
    golden_train_batch,
    golden_video,
    official_state_dict,
)

# float32 on CPU: what the golden numbers were computed in, by other operations in another order.
EMBEDDING_TOLERANCE = {"rtol": 0, "atol": 2e-5}
RELATIVE_TOLERANCE = 1e-4


def golden_model(family: str, implementation: str = "sdpa") -> TVTSv2ForPreTraining:
    config = golden_config(family)
    config._attn_implementation = implementation
    model = TVTSv2ForPreTraining(config)
    model.load_state_dict(convert_official_state_dict(official_state_dict(family)), strict=True)
    return model.eval()


def assert_golden_outputs(outputs, golden: dict) -> None:
    for name, actual in (
        ("text_mean", outputs.text_embeds),
        ("video", outputs.video_embeds),
        ("order_logits", outputs.sorting_logits),
    ):
        torch.testing.assert_close(actual, torch.tensor(golden[name]), **EMBEDDING_TOLERANCE)
    assert outputs.contrastive_loss.item() == pytest.approx(golden["loss_contrastive"], rel=RELATIVE_TOLERANCE)
    assert outputs.sorting_loss.item() == pytest.approx(golden["loss_sorting"], rel=RELATIVE_TOLERANCE)
    assert outputs.loss.item() == pytest.approx(
        golden["loss_contrastive"] + golden["loss_sorting"], rel=RELATIVE_TOLERANCE
    )


# --- the release's numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_training_gives_the_release_s_losses_and_gradients(family, implementation):
    model, golden = golden_model(family, implementation).train(), GOLDEN[family]["train"]
    outputs = model(**golden_train_batch(family))
    assert_golden_outputs(outputs, golden)

    outputs.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for official_name, expected in golden["grad_norm"].items():
        parts = [gradients.pop(name) for name in converted_names(official_name)]
        norm = torch.cat([part.flatten() for part in parts]).double().norm().item()
        assert norm == pytest.approx(expected, rel=RELATIVE_TOLERANCE), official_name
    assert not gradients, "parameters without a golden gradient"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_evaluation_gives_the_release_s_embeddings(family, implementation):
    model, golden = golden_model(family, implementation), GOLDEN[family]["eval"]
    pixels = golden_video(2, 5, GOLDEN[family]["config"]["image"])
    with torch.no_grad():
        text = model.get_text_features(golden_eval_ids(family)).pooler_output
        video = model.get_video_features(pixels)
        image = model.get_video_features(pixels[:, :1]).pooler_output
        # What the sorter would get: in the H family without the class token.
        first = 0 if model.config.sorter_uses_class_token else 1
        tokens = model.visual_projection(video.last_hidden_state[:, first:]).double()
    torch.testing.assert_close(text, torch.tensor(golden["text"]), **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(video.pooler_output, torch.tensor(golden["video"]), **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(image, torch.tensor(golden["image"]), **EMBEDDING_TOLERANCE)
    assert list(tokens.shape) == golden["tokens_shape"]
    assert tokens.sum().item() == pytest.approx(golden["tokens_sum"], rel=RELATIVE_TOLERANCE)
    assert tokens.abs().sum().item() == pytest.approx(golden["tokens_abs"], rel=RELATIVE_TOLERANCE)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_flex_attention_gives_the_release_s_losses(family):
    """Forward only: torch has no backward of flex attention on CPU. Uncompiled: the same mathematics, in seconds."""
    model = golden_model(family, "flex_attention")
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        outputs = model(**golden_train_batch(family))
    assert_golden_outputs(outputs, GOLDEN[family]["train"])


def test_flex_attention_gives_the_same_when_compiled(tiny_config, cpp_compiler):
    """As users run it: transformers compiles flex attention on its first call."""
    model = randomized(TVTSv2VisionModel(tiny_config.vision_config)).eval()
    pixels = torch.randn(2, 3, 3, 24, 24)
    with torch.no_grad():
        expected = model(pixels).last_hidden_state
        model.set_attn_implementation("flex_attention")
        torch.testing.assert_close(model(pixels).last_hidden_state, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no backward of flex attention on CPU; needs CUDA")
def test_flex_attention_gives_the_same_gradients_on_cuda():
    config = make_tiny_config(
        text={"hidden_size": 48, "intermediate_size": 96},
        vision={"hidden_size": 64, "intermediate_size": 128},
        projection_dim=64,
        sorter_num_attention_heads=4,
    )  # heads of 16: the least that the kernel takes
    model = randomized(TVTSv2ForPreTraining(config), std=0.05).cuda()
    batch = {name: tensor.cuda() for name, tensor in make_tiny_batch().items()}
    gradients = []
    for implementation in ("sdpa", "flex_attention"):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_pre_training_puts_towers_and_sorter_together_as_the_reference_does(family, tiny_batch):
    is_b = family == "B"
    config = make_tiny_config(
        vision={"post_layernorm_scope": "all" if is_b else "pooled"}, sorter_uses_class_token=is_b
    )
    model = randomized(TVTSv2ForPreTraining(config)).double().eval()
    tiny_batch["pixel_values_videos"] = tiny_batch["pixel_values_videos"].double()
    outputs = model(**tiny_batch)
    projection = model.visual_projection.weight.detach()
    for index in range(2):
        kept = (~tiny_batch["bool_masked_pos"][index]).nonzero().flatten().tolist()
        tokens, pooled = reference.video_tower(
            tiny_batch["pixel_values_videos"][index],
            reference.weights_of(model.vision_model),
            config.vision_config,
            kept,
        )
        transcripts = model.get_text_features(tiny_batch["input_ids"][index]).pooler_output
        tokens = tokens if is_b else tokens[1:]
        logits = reference.sorter(tokens @ projection.T, transcripts, reference.weights_of(model.sorter), config)
        torch.testing.assert_close(outputs.video_embeds[index], pooled @ projection.T, rtol=0, atol=1e-11)
        torch.testing.assert_close(outputs.text_embeds[index], transcripts.mean(0), rtol=0, atol=1e-11)
        torch.testing.assert_close(outputs.sorting_logits[index], logits, rtol=0, atol=1e-11)


# --- the text tower ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_text_tower_is_clip_s(hidden_act, implementation):
    config = make_tiny_config(text={"hidden_act": hidden_act, "num_hidden_layers": 2}).text_config
    fields = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    clip = randomized(CLIPTextModel(CLIPTextConfig(**fields))).eval()
    model = TVTSv2TextModel(config).eval()
    model.load_state_dict(clip.state_dict(), strict=True)
    model.set_attn_implementation(implementation)
    clip.set_attn_implementation(implementation)
    input_ids = make_tiny_batch()["input_ids"].flatten(0, 1)
    with torch.no_grad():
        actual, expected = model(input_ids), clip(input_ids)
    assert torch.equal(actual.last_hidden_state, expected.last_hidden_state)
    assert torch.equal(actual.pooler_output, expected.pooler_output)


def test_nothing_behind_the_end_of_text_matters(tiny_model):
    ids = torch.tensor([[38, 5, 6, 39, 0, 0, 0, 0], [38, 7, 8, 9, 10, 11, 12, 39]])
    expected = tiny_model.get_text_features(ids).pooler_output
    for padding in (0, 39, 17):  # the end-of-text token itself is what CLIP pads with
        ids[0, 4:] = padding
        mask = torch.ones_like(ids)
        mask[0, 4:] = 0
        torch.testing.assert_close(tiny_model.get_text_features(ids, mask).pooler_output, expected)
    shorter = tiny_model.get_text_features(ids[:1, :4]).pooler_output
    torch.testing.assert_close(shorter, expected[:1], rtol=0, atol=1e-6)


def test_an_end_of_text_id_of_2_is_taken_at_its_word():
    """transformers' CLIP reads `eos_token_id=2` as "the largest id", as CLIP's oldest configurations meant it."""
    model = randomized(TVTSv2TextModel(make_tiny_config(text={"eos_token_id": 2}).text_config)).eval()
    outputs = model(torch.tensor([[1, 30, 5, 2, 0]]))
    assert torch.equal(outputs.pooler_output[0], outputs.last_hidden_state[0, 3])


def test_text_without_an_end_is_an_error_that_names_it(tiny_model):
    ids = torch.tensor([[38, 5, 39], [38, 5, 6]])
    with pytest.raises(ValueError, match=r"Text 1 has no end-of-text token \(eos_token_id=39\).*processor"):
        tiny_model.get_text_features(ids)


def test_text_longer_than_the_positions_is_an_error(tiny_model):
    ids = torch.full((1, 11), 39)
    with pytest.raises(ValueError, match=r"max_position_embeddings.*11.*10"):
        tiny_model.get_text_features(ids)


def test_text_of_three_axes_is_an_error(tiny_model, tiny_batch):
    with pytest.raises(ValueError, match=r"must be \(batch, tokens\), got \(2, 4, 10\)"):
        tiny_model.get_text_features(tiny_batch["input_ids"])


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


# --- masks and transcripts: what does not fit --------------------------------------------------------------------


def test_a_mask_that_drops_nothing_is_no_mask(tiny_model):
    pixels = torch.randn(2, 3, 3, 24, 24)
    expected = tiny_model.vision_model(pixels).last_hidden_state
    nothing = torch.zeros(2, 9, dtype=torch.bool)
    torch.testing.assert_close(tiny_model.vision_model(pixels, nothing).last_hidden_state, expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(2, 9), r"must be bool of shape .* \(2, 9\), got torch.float32"),
        (torch.zeros(2, 8, dtype=torch.bool), r"\(batch, patches of a frame\) = \(2, 9\), got .* \(2, 8\)"),
        (torch.zeros(1, 9, dtype=torch.bool), r"\(batch, patches of a frame\) = \(2, 9\), got .* \(1, 9\)"),
        (torch.zeros(2, 3, 9, dtype=torch.bool), r"= \(2, 9\), got torch.bool of shape \(2, 3, 9\)"),
        (torch.arange(18).view(2, 9) > 7, r"same number of patches in every row, here 1, got \[1, 9\]"),
        (torch.ones(2, 9, dtype=torch.bool), "keep at least one of 9 patches, but drops 9"),
    ],
)
def test_masks_that_do_not_fit_are_explained(tiny_model, tiny_batch, mask, message):
    tiny_batch["bool_masked_pos"] = mask
    with pytest.raises(ValueError, match=message):
        tiny_model(**tiny_batch)


def test_a_stated_mask_count_is_checked(tiny_model, tiny_batch):
    with pytest.raises(ValueError, match=r"here 5, got \[4, 4\]"):
        tiny_model(**tiny_batch, num_masked_patches=5)
    with pytest.raises(ValueError, match=r"here -1, got \[4, 4\]"):
        tiny_model(**tiny_batch, num_masked_patches=-1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 10), r"Got 3 transcripts per video; the sorter was built for 4, and 1 \(a caption"),
        ((3, 4, 10), r"with batch 2, as there are videos; got \(3, 4, 10\)"),
        ((8, 10), r"\(batch, transcripts, tokens\) with batch 2.*got \(8, 10\)"),
    ],
)
def test_transcripts_that_do_not_fit_are_explained(tiny_model, tiny_batch, shape, message):
    tiny_batch["input_ids"] = torch.full(shape, 39)
    with pytest.raises(ValueError, match=message):
        tiny_model(**tiny_batch)


def test_sorting_labels_that_do_not_fit_are_explained(tiny_model, tiny_batch):
    tiny_batch["sorting_labels"] = tiny_batch["sorting_labels"][:, :3]
    with pytest.raises(ValueError, match=r"sorting_labels must be \(batch, transcripts\) = \(2, 4\), got \(2, 3\)"):
        tiny_model(**tiny_batch)


def test_pre_training_takes_more_frames_on_request(tiny_model):
    batch = make_tiny_batch(num_frames=6)
    with pytest.raises(ValueError, match=r"6 frames.*interpolate_pos_encoding=True"):
        tiny_model(**batch)
    assert tiny_model(**batch, interpolate_pos_encoding=True).loss.isfinite()


# --- other outputs -----------------------------------------------------------------------------------------------


def test_similarities_are_cosines_over_the_temperature(tiny_model, tiny_batch):
    model = TVTSv2Model(tiny_model.config).eval()
    model.load_state_dict({n: t for n, t in tiny_model.state_dict().items() if not n.startswith("sorter.")})
    ids, pixels = tiny_batch["input_ids"].flatten(0, 1)[:3], tiny_batch["pixel_values_videos"]
    outputs = model(ids, pixels)
    assert outputs.loss is None
    cosines = torch.cosine_similarity(outputs.video_embeds[:, None], outputs.text_embeds[None], dim=-1)
    torch.testing.assert_close(outputs.logits_per_video, cosines / 0.05)
    torch.testing.assert_close(outputs.logits_per_text, (cosines / 0.05).T)
    paired = model(ids[:2], pixels, return_loss=True)
    own = torch.arange(2)
    expected = sum(
        torch.nn.functional.cross_entropy(logits, own) for logits in (paired.logits_per_video, paired.logits_per_text)
    )
    torch.testing.assert_close(paired.loss, expected)
    with pytest.raises(ValueError, match="same shape"):
        model(ids, pixels, return_loss=True)


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


def test_text_attentions_come_from_eager_attention(tiny_model, tiny_batch):
    ids = tiny_batch["input_ids"][:, 0]
    tiny_model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match=r"eager attention only, not by 'sdpa'; call model.set_attn_implementation"):
        tiny_model.get_text_features(ids, output_attentions=True)
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


# --- ways of running ---------------------------------------------------------------------------------------------


def gradients_of(model, batch) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_gradient_checkpointing_gives_the_same_gradients(tiny_batch):
    config = make_tiny_config(vision={"num_hidden_layers": 2}, text={"num_hidden_layers": 2})
    model = randomized(TVTSv2ForPreTraining(config)).train()
    expected = gradients_of(model, tiny_batch)
    model.activation_checkpointing_enable()
    calls = {"temporal_attn": 0, "self_attn": 0}
    for name, module in model.named_modules():
        if name.endswith(("temporal_attn", "self_attn")) and not name.startswith("sorter."):
            kind = name.rpartition(".")[2]
            module.register_forward_hook(lambda *_, kind=kind: calls.update({kind: calls[kind] + 1}))
    actual = gradients_of(model, tiny_batch)
    assert calls == {"temporal_attn": 2 * 2, "self_attn": 2 * 4}  # each block ran a second time, for the backward pass
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("masked", [True, False])
def test_one_graph_holds_the_whole_training_step(tiny_model, tiny_batch, masked):
    """`fullgraph=True` raises where anything, such as a look at a tensor's values, would break the graph."""
    if masked:
        tiny_batch["num_masked_patches"] = 4
    else:
        del tiny_batch["bool_masked_pos"]
    expected = gradients_of(tiny_model, tiny_batch)
    compiled = torch.compile(tiny_model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**tiny_batch).loss, tiny_model(**tiny_batch).loss)
    tiny_model.zero_grad()
    compiled(**tiny_batch).loss.backward()
    actual = {name: parameter.grad for name, parameter in tiny_model.named_parameters()}
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_default_compile_backend_gives_the_same(tiny_config, cpp_compiler):
    model = randomized(TVTSv2VisionModel(tiny_config.vision_config))
    pixels, mask = torch.randn(2, 3, 3, 24, 24), make_tiny_batch()["bool_masked_pos"]
    compiled = torch.compile(model, fullgraph=True)
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        run(pixels, mask, 4).last_hidden_state.square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_bfloat16_is_finite_and_close(tiny_batch, implementation):
    model = randomized(TVTSv2ForPreTraining(make_tiny_config()), std=0.05).eval()
    with torch.no_grad():
        expected = model(**tiny_batch)
        model.bfloat16().set_attn_implementation(implementation)
        actual = model(**tiny_batch)  # pixels stay float32: the model casts them
    assert actual.video_embeds.dtype == actual.sorting_logits.dtype == torch.bfloat16
    assert actual.loss.dtype == torch.float32 and actual.loss.isfinite()
    for name in ("video_embeds", "text_embeds"):
        cosine = torch.cosine_similarity(actual[name].float(), expected[name])
        assert cosine.min() > 0.999, name
    torch.testing.assert_close(actual.sorting_logits.float(), expected.sorting_logits, rtol=0.05, atol=0.05)


def test_autocast_trains(tiny_model, tiny_batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = tiny_model(**tiny_batch).loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in tiny_model.parameters())


def test_set_attn_implementation_reaches_every_part(tiny_model, tiny_batch, monkeypatch):
    modules = {
        "text": tiny_model.text_model.encoder.layers[0].self_attn,
        "time": tiny_model.vision_model.encoder.layers[0].temporal_attn,
        "space": tiny_model.vision_model.encoder.layers[0].self_attn,
        "sorter": tiny_model.sorter.layers[0].self_attn,
    }
    for implementation in ("eager", "sdpa"):
        tiny_model.set_attn_implementation(implementation)
        assert {name: module.config._attn_implementation for name, module in modules.items()} == dict.fromkeys(
            modules, implementation
        )
    # And what runs under sdpa is torch's fused attention alone: no matrix of scores is ever written out.
    counts = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch, "softmax", None)
    monkeypatch.setattr(torch.nn.functional, "softmax", None)
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **kwargs: counts.append(args[0].shape) or fused(*args, **kwargs),
    )
    tiny_model(**tiny_batch)
    assert len(counts) == 1 + 2 * 2 + 2  # text; class token and groups, over time and space; two blocks of the sorter


def test_modules_not_to_be_split_exist():
    for model_class in (TVTSv2ForPreTraining, TVTSv2Model, TVTSv2VisionModel, TVTSv2TextModel):
        is_tower = model_class in (TVTSv2VisionModel, TVTSv2TextModel)
        config = make_tiny_config()
        if is_tower:
            config = config.vision_config if model_class is TVTSv2VisionModel else config.text_config
        model = model_class(config)
        present = {type(module).__name__ for module in model.modules()}
        blocks = {name for name in present if name.endswith(("Layer", "Embeddings"))}
        assert blocks and blocks <= set(model._no_split_modules)


# --- saving and loading ------------------------------------------------------------------------------------------


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


def new_parameters(name: str) -> bool:
    return "temporal" in name or "layer_norm3" in name or name.startswith("sorter.")


def assert_starts_as_it_should(model: TVTSv2ForPreTraining, temporal_std: float) -> None:
    """What no CLIP has, in a model that was not trained: time attention adds nothing, the sorter knows no types."""
    for layer in model.vision_model.encoder.layers:
        attention = layer.temporal_attn
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            assert torch.count_nonzero(projection.weight) == torch.count_nonzero(projection.bias) == 0
        assert torch.equal(attention.out_proj.weight, torch.ones(32, 32))
        assert torch.count_nonzero(attention.out_proj.bias) == 0
        assert torch.equal(layer.layer_norm3.weight, torch.ones(32))
        assert torch.count_nonzero(layer.layer_norm3.bias) == 0
    assert model.vision_model.embeddings.temporal_embedding.weight.std().item() == pytest.approx(temporal_std, rel=0.3)
    sorter = model.sorter
    assert torch.count_nonzero(sorter.type_embedding.weight) == 0
    for name, parameter in sorter.named_parameters():
        if name.endswith(("proj.weight", "fc1.weight", "fc2.weight", "head.weight")):
            assert parameter.std().item() == pytest.approx(0.02, rel=0.3), name
        elif "norm" in name and name.endswith("weight"):
            assert torch.equal(parameter, torch.ones(20)), name
        elif name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name


def test_a_new_model_starts_as_it_should():
    config = make_tiny_config(vision={"temporal_initializer_range": 0.3})
    assert_starts_as_it_should(TVTSv2ForPreTraining(config), temporal_std=0.3)


def test_a_new_model_starts_where_clip_starts_too():
    """Widths of CLIP's own initialisation, which is that of its papers, not one width for all."""
    config = make_tiny_config(
        text={"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2},
        vision={"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2},
    )
    model = TVTSv2Model(config)
    for tower in (model.text_model, model.vision_model):
        layer = tower.encoder.layers[1]
        for parameter, std in (
            (layer.self_attn.q_proj.weight, 64**-0.5 * 4**-0.5),
            (layer.self_attn.out_proj.weight, 64**-0.5),
            (layer.mlp.fc1.weight, 128**-0.5),
            (layer.mlp.fc2.weight, 64**-0.5 * 4**-0.5),
        ):
            assert parameter.std().item() == pytest.approx(std, rel=0.1)
    for projection in (model.text_projection, model.visual_projection):
        assert projection.weight.std().item() == pytest.approx(64**-0.5, rel=0.1)
    assert model.vision_model.embeddings.class_embedding.std().item() == pytest.approx(64**-0.5, rel=0.4)


def test_what_a_checkpoint_lacks_starts_as_it_should_and_the_rest_is_the_checkpoint_s(tiny_config, tmp_path):
    tiny_config.vision_config.temporal_initializer_range = 0.3
    model = randomized(TVTSv2ForPreTraining(tiny_config))
    weights = {name: tensor for name, tensor in model.state_dict().items() if not new_parameters(name)}
    model.save_pretrained(tmp_path, state_dict=dict(weights))  # a copy: saving empties it
    for _ in range(2):  # memory that was garbage once may be clean by chance
        loaded, report = TVTSv2ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
        assert report["missing_keys"] == {name for name in model.state_dict() if new_parameters(name)}
        assert not report["unexpected_keys"] and not report["mismatched_keys"]
        assert_starts_as_it_should(loaded, temporal_std=0.3)
        for name, tensor in weights.items():
            assert torch.equal(loaded.state_dict()[name], tensor), name


def test_one_missing_tensor_is_set_and_its_neighbours_stay(tiny_model, tmp_path):
    """The start of a module's one lost weight must not spill over to those that were loaded."""
    prefix = "vision_model.encoder.layers.0.temporal_attn."
    weights = {n: t for n, t in tiny_model.state_dict().items() if n != prefix + "out_proj.weight"}
    tiny_model.save_pretrained(tmp_path, state_dict=dict(weights))  # a copy: saving empties it
    loaded = TVTSv2ForPreTraining.from_pretrained(tmp_path).state_dict()
    assert torch.equal(loaded.pop(prefix + "out_proj.weight"), torch.ones(32, 32))
    for name, tensor in loaded.items():
        assert torch.equal(tensor, weights[name]), name


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


@contextlib.contextmanager
def propagating_transformers_log():
    """Lets pytest see what transformers logs."""
    logger = logging.getLogger("transformers")
    before, logger.propagate = logger.propagate, True
    try:
        yield
    finally:
        logger.propagate = before


def test_the_vocabulary_can_grow(tiny_model, tiny_batch, tmp_path):
    expected = tiny_model(**tiny_batch).loss
    tiny_model.resize_token_embeddings(44)
    assert tiny_model.config.text_config.vocab_size == 44
    assert torch.equal(tiny_model(**tiny_batch).loss, expected)
    tiny_model.save_pretrained(tmp_path)
    loaded = TVTSv2ForPreTraining.from_pretrained(tmp_path)
    assert_same_weights(loaded, tiny_model.state_dict())


def test_exports_are_what_the_readme_imports():
    for name in modeling_tvtsv2.__all__:
        assert getattr(modeling_tvtsv2, name).__name__ == name
    assert TVTSv2Config.model_type == "tvtsv2"
