"""The video tower: equal to a slow reference, equal to CLIP before it has learned time, and clear about shapes."""

import copy

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.modeling_clip import CLIPMLP

from benchmarks.speed.towers.release_style import ReleaseStyleDividedAttention, ReleaseStyleModel
from modeling_tvtsv2 import (
    TVTSv2ForPreTraining,
    TVTSv2Model,
    TVTSv2VisionConfig,
    TVTSv2VisionModel,
    modeling_tvtsv2,
)
from modeling_tvtsv2.modeling_tvtsv2 import (
    TVTSv2DividedAttention,
    TVTSv2MLP,
    TVTSv2VideoEmbeddings,
    TVTSv2VideoLayer,
)
from tests.support.tiny_models import make_tiny_config, randomized

NUM_FRAMES = [1, 3, 4]  # an image, fewer than the model has temporal embeddings for, as many


@pytest.fixture
def vision_config(tiny_config) -> TVTSv2VisionConfig:
    config = tiny_config.vision_config
    config._attn_implementation = "sdpa"
    return config


@pytest.mark.parametrize("num_frames", NUM_FRAMES)
@pytest.mark.parametrize("over", ["time", "space"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_divided_attention_equals_the_reference(vision_config, over, num_frames, implementation):
    vision_config._attn_implementation = implementation
    attention = randomized(TVTSv2DividedAttention(vision_config, over_time=over == "time")).double()
    tokens = torch.randn(2, 1 + num_frames * 5, 32, dtype=torch.float64)
    expected = ReleaseStyleDividedAttention(attention, over == "time")(tokens, num_frames)
    tolerance = 1e-12 if implementation == "sdpa" else 2e-6  # eager takes its softmax in float32
    torch.testing.assert_close(attention(tokens, num_frames)[0], expected, rtol=0, atol=tolerance)
    output, weights = attention(tokens, num_frames, output_attentions=True)
    torch.testing.assert_close(output, expected, rtol=0, atol=2e-6)
    assert weights.shape == (2, 4, tokens.shape[1], tokens.shape[1])
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize("num_frames", NUM_FRAMES)
@pytest.mark.parametrize(("scope", "hidden_act"), [("all", "quick_gelu"), ("pooled", "gelu")])
@pytest.mark.parametrize("masked", [False, True])
def test_video_tower_equals_the_reference(num_frames, scope, hidden_act, masked):
    vision = {"post_layernorm_scope": scope, "hidden_act": hidden_act, "num_hidden_layers": 2}
    model = randomized(TVTSv2ForPreTraining(make_tiny_config(vision=vision))).double().eval()
    pixels = torch.randn(2, num_frames, 3, 24, 24, dtype=torch.float64)
    mask = None
    if masked:
        mask = torch.ones(2, 9, dtype=torch.bool)
        for row, patches in zip(mask, [[0, 2, 5, 7], [1, 2, 3, 8]], strict=True):
            row[patches] = False
    outputs, reference = model.vision_model(pixels, bool_masked_pos=mask), ReleaseStyleModel(model)
    video, tokens = reference.project(reference.video_tokens(pixels, mask))
    torch.testing.assert_close(model.visual_projection(outputs.pooler_output), video, rtol=0, atol=1e-11)
    own = model.visual_projection(outputs.last_hidden_state)
    torch.testing.assert_close(own[:, -tokens.shape[1] :], tokens, rtol=0, atol=1e-11)


def test_dropped_patches_are_never_read(tiny_model, tiny_batch):
    pixels, mask = tiny_batch["pixel_values_videos"], tiny_batch["bool_masked_pos"]
    expected = tiny_model.vision_model(pixels, mask).pooler_output
    grid = mask.view(2, 1, 1, 3, 1, 3, 1).expand(2, 3, 3, 3, 8, 3, 8)
    pixels = pixels.view(2, 3, 3, 3, 8, 3, 8).masked_fill(grid, float("nan")).view(2, 3, 3, 24, 24)
    assert torch.equal(tiny_model.vision_model(pixels, mask).pooler_output, expected)


def test_channels_last_and_sliced_pixels_give_the_same(tiny_model):
    pixels = torch.randn(2, 6, 3, 24, 24)
    strided = pixels[:, ::2]
    channels_last = strided.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    expected = tiny_model.vision_model(strided.contiguous()).pooler_output
    for other in (strided, channels_last):
        assert not other.is_contiguous()
        torch.testing.assert_close(tiny_model.vision_model(other).pooler_output, expected)


def test_time_attention_of_a_new_model_adds_exactly_zero(tiny_config):
    model = TVTSv2VisionModel(tiny_config.vision_config)
    for layer in model.encoder.layers:
        assert torch.count_nonzero(layer.temporal_attn(torch.randn(2, 1 + 3 * 9, 32), 3)[0]) == 0


def test_time_attention_of_a_new_model_still_learns(tiny_config):
    model = TVTSv2VisionModel(tiny_config.vision_config)
    model(torch.randn(2, 3, 3, 24, 24)).pooler_output.square().sum().backward()
    attention = model.encoder.layers[0].temporal_attn
    assert attention.v_proj.weight.grad.abs().max() > 0
    assert attention.out_proj.bias.grad.abs().max() > 0


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_a_new_model_embeds_an_image_as_clip_does(hidden_act):
    config = make_tiny_config(vision={"hidden_act": hidden_act, "num_hidden_layers": 2})
    clip_config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=128,
        projection_dim=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=24,
        patch_size=8,
        hidden_act=hidden_act,
    )
    clip = randomized(CLIPVisionModelWithProjection(clip_config)).eval()
    model = TVTSv2Model(config).eval()
    incompatible = model.load_state_dict(clip.state_dict(), strict=False)
    assert incompatible.unexpected_keys == []
    torch.nn.init.zeros_(model.vision_model.embeddings.temporal_embedding.weight)
    image = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = clip(image).image_embeds
        actual = model.get_video_features(image[:, None]).pooler_output
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


# --- interpolation -----------------------------------------------------------------------------------------------


@pytest.fixture
def embeddings(vision_config) -> TVTSv2VideoEmbeddings:
    return randomized(TVTSv2VideoEmbeddings(vision_config))


@pytest.mark.parametrize(("height", "width"), [(48, 48), (16, 40), (24, 48)])
def test_other_image_sizes_stretch_the_position_embeddings(embeddings, height, width):
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        tokens = embeddings(torch.zeros(2, 3, 3, height, width), interpolate_pos_encoding=True)
        square = embeddings.position_embedding.weight[1:].T.reshape(1, 32, 3, 3)
        size = (height // 8, width // 8)
        spatial = torch.nn.functional.interpolate(square, size=size, mode="bicubic").flatten(2)[0].T
        temporal = embeddings.temporal_embedding.weight
    tokens = tokens[:, 1:].unflatten(1, (3, -1))
    for frame in range(3):
        torch.testing.assert_close(tokens[1, frame], spatial + temporal[frame])


def test_more_frames_stretch_the_temporal_embedding_from_end_to_end(embeddings):
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        tokens = embeddings(torch.zeros(1, 10, 3, 24, 24), interpolate_pos_encoding=True)[0, 1:].view(10, 9, 32)
    found = tokens[:, 0] - embeddings.position_embedding.weight[1]
    rows = embeddings.temporal_embedding.weight
    for frame in range(10):
        place = frame * (4 - 1) / (10 - 1)  # of 10 frames among 4 rows, the ends kept
        low = min(int(place), 2)
        expected = rows[low] + (place - low) * (rows[low + 1] - rows[low])
        torch.testing.assert_close(found[frame], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_frames", NUM_FRAMES)
def test_interpolation_changes_nothing_where_nothing_needs_stretching(tiny_model, num_frames):
    pixels = torch.randn(2, num_frames, 3, 24, 24)
    expected = tiny_model.get_video_features(pixels).pooler_output
    assert torch.equal(tiny_model.get_video_features(pixels, interpolate_pos_encoding=True).pooler_output, expected)


def test_mask_of_a_stretched_image_counts_its_own_patches(tiny_model):
    pixels, mask = torch.randn(1, 3, 3, 32, 48), torch.zeros(1, 24, dtype=torch.bool)
    mask[0, 5:] = True
    outputs = tiny_model.vision_model(pixels, mask, interpolate_pos_encoding=True)
    assert outputs.last_hidden_state.shape == (1, 1 + 3 * 5, 32)
    pixels[..., 8:, :] = float("nan")  # the kept patches 0-4 are all in the first of 4 rows
    again = tiny_model.vision_model(pixels, mask, interpolate_pos_encoding=True)
    assert torch.equal(again.last_hidden_state, outputs.last_hidden_state)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 5, 3, 24, 24), r"5 frames.*embeddings for 4.*interpolate_pos_encoding=True"),
        ((2, 3, 3, 32, 24), r"32x24 pixels.*built for 24x24.*interpolate_pos_encoding=True"),
        ((2, 3, 24, 24), r"\(batch, frames, 3, height, width\), got \(2, 3, 24, 24\).*add a frame axis"),
        ((2, 3, 24, 24, 3), r"\(batch, frames, 3, height, width\), got \(2, 3, 24, 24, 3\)"),
        ((2, 0, 3, 24, 24), "hold no frame or no patch of 8 pixels"),
    ],
)
def test_shapes_that_do_not_fit_are_named(tiny_model, shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_model.get_video_features(torch.zeros(shape))


def test_an_image_smaller_than_a_patch_is_refused_even_with_interpolation(tiny_model):
    with pytest.raises(ValueError, match="no patch of 8 pixels"):
        tiny_model.get_video_features(torch.zeros(1, 1, 3, 7, 24), interpolate_pos_encoding=True)


# --- less work, equal numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "pooled"])
def test_class_token_alone_has_the_same_embedding(scope):
    model = TVTSv2VisionModel(make_tiny_config(vision={"post_layernorm_scope": scope}).vision_config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = model.config
    videos = torch.randn(2, config.num_frames, 3, config.image_size, config.image_size)
    with torch.no_grad():
        whole, alone = model(videos), model(videos, class_token_only=True)
    assert alone.last_hidden_state.shape == (2, 1, config.hidden_size)
    torch.testing.assert_close(alone.pooler_output, whole.pooler_output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone.last_hidden_state, whole.last_hidden_state[:, :1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("over_time", [True, False])
def test_bfloat16_on_a_cpu_is_as_exact_as_fused_attention(vision_config, over_time, monkeypatch):
    attention = randomized(TVTSv2DividedAttention(vision_config, over_time), std=0.2)
    tokens, direction = torch.randn(2, 1 + 4 * 9, 32), torch.randn(2, 1 + 4 * 9, 32)

    def run(dtype: torch.dtype) -> list[torch.Tensor]:
        module = copy.deepcopy(attention).to(dtype)
        leaf = tokens.to(dtype, copy=True).requires_grad_()
        output, _ = module(leaf, 4)
        output.backward(direction.to(dtype))
        return [output, leaf.grad, *(parameter.grad for parameter in module.parameters() if parameter.ndim > 1)]

    def fused(query, key, value, scale, dropout):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scale).transpose(1, 2)

    exact, ours = run(torch.float32), run(torch.bfloat16)
    monkeypatch.setattr(modeling_tvtsv2, "attend_with_scores", fused)
    for right, actual, other in zip(exact, ours, run(torch.bfloat16), strict=True):
        assert (actual - right).norm() < 0.02 * right.norm()
        assert (actual - right).norm() < 1.5 * (other - right).norm()


def test_bfloat16_on_a_cpu_leaves_torch_s_fused_attention_alone(vision_config, monkeypatch):
    """Its backward pass takes several times as long there."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    layer = randomized(TVTSv2VideoLayer(vision_config)).bfloat16()
    assert layer(torch.randn(2, 1 + 4 * 9, 32).bfloat16(), 4)[0].isfinite().all()
    with pytest.raises(TypeError):
        layer.float()(torch.randn(2, 1 + 4 * 9, 32), 4)


def test_bfloat16_on_a_cpu_drops_attention_out_in_training_only(vision_config):
    vision_config.attention_dropout = 1.0
    attention = randomized(TVTSv2DividedAttention(vision_config, over_time=False)).bfloat16()
    tokens = torch.randn(1, 1 + 2 * 3, 32).bfloat16()
    torch.testing.assert_close(attention.train()(tokens, 2)[0], attention.out_proj.bias.expand(1, 7, 32))
    assert not torch.equal(attention.eval()(tokens, 2)[0], attention.out_proj.bias.expand(1, 7, 32))


def test_mlp_in_pieces_and_in_place_is_clip_s():
    config = make_tiny_config(vision={"hidden_act": "quick_gelu"}).vision_config
    mlp, expected = TVTSv2MLP(config).double(), CLIPMLP(config).double()
    expected.load_state_dict(mlp.state_dict())
    states = torch.randn(2, 1500, config.hidden_size, dtype=torch.float64)  # more rows than go through at once
    before = states.clone()
    with torch.no_grad():
        torch.testing.assert_close(mlp(states), expected(states))
    torch.testing.assert_close(states, before, rtol=0, atol=0)

    gradients = []
    for module in (mlp, expected):
        leaf = states.clone().requires_grad_()
        module(leaf).square().sum().backward()
        gradients.append([leaf.grad, *(parameter.grad for parameter in module.parameters())])
    torch.testing.assert_close(*gradients)
