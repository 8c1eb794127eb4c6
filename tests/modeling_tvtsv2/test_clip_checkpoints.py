"""CLIP checkpoints in transformers' format load as they are, and what is new is exactly what CLIP never had."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from modeling_tvtsv2 import (
    TVTSv2Config,
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from tests.support.tiny_models import make_tiny_batch, randomized

NUM_LAYERS = 2
# Small CLIPs with the proportions of the two families that TVTSv2 starts from: OpenAI's B/32 and laion's H/14.
LAYOUTS = {
    "openai": {
        "text": {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "hidden_act": "quick_gelu"},
        "vision": {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "hidden_act": "quick_gelu"},
        "projection_dim": 20,
    },
    "openclip": {
        "text": {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "hidden_act": "gelu"},
        "vision": {"hidden_size": 40, "intermediate_size": 160, "num_attention_heads": 5, "hidden_act": "gelu"},
        "projection_dim": 32,
    },
}

TEMPORAL_ATTENTION = [
    f"vision_model.encoder.layers.{layer}.{name}.{kind}"
    for layer in range(NUM_LAYERS)
    for name in (
        "layer_norm3",
        "temporal_attn.q_proj",
        "temporal_attn.k_proj",
        "temporal_attn.v_proj",
        "temporal_attn.out_proj",
    )
    for kind in ("weight", "bias")
]
TEMPORAL_EMBEDDING = ["vision_model.embeddings.temporal_embedding.weight"]
SORTER = [
    "sorter.type_embedding.weight",
    *(
        f"sorter.layers.{layer}.{name}.{kind}"
        for layer in range(2)
        for name in (
            "layer_norm1",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.out_proj",
            "layer_norm2",
            "fc1",
            "fc2",
        )
        for kind in ("weight", "bias")
    ),
    *(f"sorter.{name}.{kind}" for name in ("final_layer_norm", "head") for kind in ("weight", "bias")),
]


def clip_and_our_config(layout: str, clip_eos_token_id: int = 39) -> tuple[CLIPModel, TVTSv2Config]:
    """Returns a random CLIP and the configuration under which its weights are to be loaded."""
    sizes = LAYOUTS[layout]
    text = sizes["text"] | {
        "num_hidden_layers": NUM_LAYERS,
        "vocab_size": 40,
        "max_position_embeddings": 10,
        "bos_token_id": 38,
        "pad_token_id": 1,
    }
    vision = sizes["vision"] | {"num_hidden_layers": NUM_LAYERS, "image_size": 24, "patch_size": 8}
    clip_config = CLIPConfig(
        text_config=text | {"eos_token_id": clip_eos_token_id, "projection_dim": sizes["projection_dim"]},
        vision_config=vision | {"projection_dim": sizes["projection_dim"]},
        projection_dim=sizes["projection_dim"],
    )
    is_openclip = layout == "openclip"
    config = TVTSv2Config(
        text_config=text | {"eos_token_id": 39},
        vision_config=vision | {"num_frames": 4, "post_layernorm_scope": "pooled" if is_openclip else "all"},
        projection_dim=sizes["projection_dim"],
        sorter_num_attention_heads=4,
        sorter_uses_class_token=not is_openclip,
    )
    return randomized(CLIPModel(clip_config)).eval(), config


def assert_equal_to(clip: CLIPModel, model: torch.nn.Module, prefix: str = "", new: list[str] = ()) -> None:
    expected, actual = clip.state_dict(), model.state_dict()
    shared = [name for name in actual if prefix + name not in new]
    assert len(shared) == len(actual) - len(new)
    for name in shared:
        assert torch.equal(actual[name], expected[prefix + name]), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clip_loads_without_conversion_and_the_report_lists_what_is_new(layout, tmp_path):
    clip, config = clip_and_our_config(layout)
    clip.save_pretrained(tmp_path)
    model, report = TVTSv2ForPreTraining.from_pretrained(tmp_path, config=config, output_loading_info=True)
    new = [*TEMPORAL_ATTENTION, *TEMPORAL_EMBEDDING, *SORTER]
    assert report["missing_keys"] == set(new)
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert_equal_to(clip, model, new=new)
    # Nothing of CLIP was left behind but its learned temperature.
    assert set(clip.state_dict()) - set(model.state_dict()) == {"logit_scale"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_loaded_model_embeds_texts_and_images_as_clip_does(layout, tmp_path):
    clip, config = clip_and_our_config(layout)
    clip.save_pretrained(tmp_path)
    model = TVTSv2Model.from_pretrained(tmp_path, config=config)
    torch.nn.init.zeros_(model.vision_model.embeddings.temporal_embedding.weight)
    input_ids = make_tiny_batch()["input_ids"].flatten(0, 1)
    image = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        texts, images = clip.get_text_features(input_ids), clip.get_image_features(image)
        torch.testing.assert_close(model.get_text_features(input_ids).pooler_output, texts.pooler_output)
        actual = model.get_video_features(image[:, None]).pooler_output
    torch.testing.assert_close(actual, images.pooler_output, rtol=0, atol=1e-5)


def test_a_legacy_end_of_text_id_in_clip_s_file_does_not_count(tmp_path):
    """Old files say `eos_token_id: 2` and mean the largest id; under our configuration it is the id that it says."""
    clip, config = clip_and_our_config("openai", clip_eos_token_id=2)
    clip.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_config"]["eos_token_id"] == 2
    model = TVTSv2Model.from_pretrained(tmp_path, config=config)
    assert model.config.text_config.eos_token_id == 39
    input_ids = make_tiny_batch()["input_ids"].flatten(0, 1)  # 39 is the largest id, so both rules agree
    with torch.no_grad():
        expected = clip.get_text_features(input_ids).pooler_output
        torch.testing.assert_close(model.get_text_features(input_ids).pooler_output, expected)


CLASSES = {
    TVTSv2Model: ("", [*TEMPORAL_ATTENTION, *TEMPORAL_EMBEDDING]),
    TVTSv2ForVideoClassification: (
        "",
        [*TEMPORAL_ATTENTION, *TEMPORAL_EMBEDDING, "classifier.weight", "classifier.bias"],
    ),
    TVTSv2VisionModel: ("vision_model.", [*TEMPORAL_ATTENTION, *TEMPORAL_EMBEDDING]),
    TVTSv2TextModel: ("text_model.", []),
}


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_class_finds_its_part_of_a_clip(layout, model_class, tmp_path):
    clip, config = clip_and_our_config(layout)
    clip.save_pretrained(tmp_path)
    prefix, new = CLASSES[model_class]
    config = {"vision_model.": config.vision_config, "text_model.": config.text_config}.get(prefix, config)
    model, report = model_class.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert report["missing_keys"] == {name.removeprefix(prefix) for name in new}
    assert not report["mismatched_keys"]
    assert_equal_to(clip, model, prefix, new)


@pytest.mark.parametrize("model_class", [TVTSv2ForPreTraining, *CLASSES])
def test_old_index_buffers_and_the_logit_scale_are_no_surprise(model_class, tmp_path):
    """CLIP checkpoints written before 2023 hold `position_ids`."""
    clip, config = clip_and_our_config("openai")
    clip.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert "logit_scale" in weights
    weights["text_model.embeddings.position_ids"] = torch.arange(10)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    prefix, _ = CLASSES.get(model_class, ("", None))
    config = {"vision_model.": config.vision_config, "text_model.": config.text_config}.get(prefix, config)
    _, report = model_class.from_pretrained(tmp_path, config=config, output_loading_info=True)
    surprises = {name for name in report["unexpected_keys"] if name.endswith(("position_ids", "logit_scale"))}
    assert not surprises
    if not prefix:
        assert not report["unexpected_keys"]


def test_a_clip_of_another_size_is_refused(tmp_path):
    clip, _ = clip_and_our_config("openclip")
    clip.save_pretrained(tmp_path)
    _, config = clip_and_our_config("openai")
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        TVTSv2ForPreTraining.from_pretrained(tmp_path, config=config)


def test_pickled_clip_checkpoints_load_too(tmp_path):
    """The oldest CLIP repositories hold a `pytorch_model.bin` alone; transformers opens it without executing it."""
    clip, config = clip_and_our_config("openai")
    clip.config.save_pretrained(tmp_path)
    torch.save(clip.state_dict(), tmp_path / "pytorch_model.bin")
    model, report = TVTSv2ForPreTraining.from_pretrained(tmp_path, config=config, output_loading_info=True)
    new = [*TEMPORAL_ATTENTION, *TEMPORAL_EMBEDDING, *SORTER]
    assert report["missing_keys"] == set(new) and not report["unexpected_keys"]
    assert_equal_to(clip, model, new=new)
