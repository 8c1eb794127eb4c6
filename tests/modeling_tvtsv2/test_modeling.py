"""The whole model: the release's numbers by every attention backend, and errors."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

import modeling_tvtsv2
from benchmarks.speed.towers.release_style import ReleaseStyleModel
from modeling_tvtsv2 import (
    TVTSv2Config,
    TVTSv2ForPreTraining,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from modeling_tvtsv2.convert_checkpoint import convert_official_state_dict, converted_names
from tests.support.deterministic_weights import (
    FAMILIES,
    GOLDEN,
    golden_config,
    golden_eval_ids,
    golden_train_batch,
    golden_video,
    official_state_dict,
)
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized

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
    outputs, reference = model(**tiny_batch), ReleaseStyleModel(model)
    tokens = reference.video_tokens(tiny_batch["pixel_values_videos"], tiny_batch["bool_masked_pos"])
    video, tokens = reference.project(tokens)
    texts = reference.embed_text(tiny_batch["input_ids"].flatten(0, 1)).unflatten(0, (2, 4))
    torch.testing.assert_close(outputs.video_embeds, video, rtol=0, atol=1e-11)
    torch.testing.assert_close(outputs.text_embeds, texts.mean(1), rtol=0, atol=1e-11)
    torch.testing.assert_close(outputs.sorting_logits, reference.sort(tokens, texts), rtol=0, atol=1e-11)


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


# --- its parts ---------------------------------------------------------------------------------------------


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


def test_exports_are_what_the_readme_imports():
    for name in modeling_tvtsv2.__all__:
        assert getattr(modeling_tvtsv2, name).__name__ == name
    assert TVTSv2Config.model_type == "tvtsv2"
