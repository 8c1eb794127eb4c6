"""How new weights start: CLIP's as CLIP's, time attention without effect, the sorter; and what a checkpoint lacks."""

import copy

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from modeling_tvtsv2 import TVTSv2ForPreTraining, TVTSv2Model
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized


def new_parameters(name: str) -> bool:
    return "temporal" in name or "layer_norm3" in name or name.startswith("sorter.")


def assert_starts_as_it_should(model: TVTSv2ForPreTraining, temporal_std: float) -> None:
    """What no CLIP has, in a model that was not trained: time attention adds nothing, type embeddings are zero."""
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


# --- starts that learn -------------------------------------------------------------------------------------------


def start_from_clip(folder, start: str) -> TVTSv2ForPreTraining:
    """Return a TVTSv2 started from a CLIP checkpoint of random weights."""
    config = make_tiny_config(vision={"num_hidden_layers": 2, "temporal_attention_init": start})
    if not folder.exists():
        fields = {
            "text_config": {n: v for n, v in config.text_config.to_dict().items() if n != "model_type"},
            "vision_config": {n: v for n, v in config.vision_config.to_dict().items() if n != "model_type"},
        }
        clip = CLIPModel(CLIPConfig(**copy.deepcopy(fields), projection_dim=config.projection_dim))
        randomized(clip, std=0.05).save_pretrained(folder)
    torch.manual_seed(0)
    return TVTSv2ForPreTraining.from_pretrained(folder, config=config)


def test_both_starts_are_clip_to_the_bit(tmp_path):
    released, identity = (start_from_clip(tmp_path / "clip", start) for start in ("released", "identity"))
    embeddings = (model.vision_model.embeddings.temporal_embedding.weight for model in (released, identity))
    for weight in embeddings:
        torch.nn.init.zeros_(weight)
    clip = CLIPModel.from_pretrained(tmp_path / "clip")
    videos = torch.randn(2, 3, 3, 24, 24)
    with torch.no_grad():
        torch.testing.assert_close(
            identity.get_video_features(videos[:, :1]).pooler_output,
            clip.get_image_features(videos[:, 0]).pooler_output,
            rtol=0,
            atol=1e-5,
        )
        expected = released.get_video_features(videos).last_hidden_state
        assert torch.equal(identity.get_video_features(videos).last_hidden_state, expected)
    for layer in identity.vision_model.encoder.layers:
        assert torch.count_nonzero(layer.temporal_attn.out_proj.weight) == 0
        for projection in (layer.temporal_attn.q_proj, layer.temporal_attn.k_proj, layer.temporal_attn.v_proj):
            assert projection.weight.std() > 0 and torch.count_nonzero(projection.bias) == 0


@pytest.mark.parametrize("start", ["released", "identity"])
def test_which_parameters_learn(tmp_path, start):
    """From the released start, queries and keys of time attention stay at zero: neither gets a gradient."""
    model = start_from_clip(tmp_path / "clip", start).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(4):
        optimizer.zero_grad()
        model(**make_tiny_batch()).loss.backward()
        optimizer.step()
    unmoved = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    prefixes = [f"vision_model.encoder.layers.{index}.temporal_attn" for index in range(2)]
    frozen = {f"{prefix}.{part}_proj.{kind}" for prefix in prefixes for part in "qk" for kind in ("weight", "bias")}
    # The softmax makes a bias of the keys irrelevant, everywhere.
    key_biases = {name for name in before if name.endswith("k_proj.bias")}
    assert unmoved - key_biases == (frozen - key_biases if start == "released" else set())


def test_the_sorter_can_start_as_released():
    config = make_tiny_config(sorter_init="released")
    sorter = TVTSv2ForPreTraining(config).sorter
    assert torch.count_nonzero(sorter.type_embedding.weight) == 0
    for name, module in sorter.named_modules():
        if isinstance(module, torch.nn.Linear):
            bound = module.in_features**-0.5
            for parameter in module.parameters():
                assert 0.7 * bound < parameter.abs().max() <= bound, name


@pytest.mark.parametrize(("field", "part"), [("temporal_attention_init", "vision"), ("sorter_init", "whole")])
def test_unknown_starts_are_refused(field, part):
    with pytest.raises(ValueError, match=rf'{field} must be ".*" or ".*", got \'zero\''):
        make_tiny_config(**({"vision": {field: "zero"}} if part == "vision" else {field: "zero"}))
