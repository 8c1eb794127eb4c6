"""The configuration: presets of the published sizes, fields that cannot make a model, a JSON round trip."""

import json

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining, TVTSv2TextConfig, TVTSv2VisionConfig

# What each size has of CLIP: all parameters of the CLIP model it starts from, without the learned logit scale.
# (public counts of ViT-B/32, ViT-B/16 and laion's ViT-H/14).
CLIP_PARAMETERS = {"b32": 151_277_312, "b16": 149_620_736, "h14": 986_109_440}
#                video width and depth, projection
NEW_SIZES = {"b32": (768, 12, 512), "b16": (768, 12, 512), "h14": (1280, 32, 1024)}
PAPER = {
    #       patch, video width/layers/heads, text width/layers/heads, projection, sorter heads, activation, scope, class
    "b32": (32, 768, 12, 12, 512, 12, 8, 512, 8, "quick_gelu", "all", True),
    "b16": (16, 768, 12, 12, 512, 12, 8, 512, 8, "quick_gelu", "all", True),
    "h14": (14, 1280, 32, 16, 1024, 24, 16, 1024, 16, "gelu", "pooled", False),
}


def num_new_parameters(width: int, depth: int, projection: int) -> int:
    """Time attention and its layer norm in each block, temporal embeddings of 12 frames, the sorter of 2 blocks."""
    time = depth * (4 * (width * width + width) + 2 * width) + 12 * width
    sorter_block = 12 * projection * projection + (4 + 4 + 1) * projection + 4 * projection
    sorter = 2 * sorter_block + 2 * projection + 2 * projection + 4 * projection + 4
    return time + sorter


@pytest.mark.parametrize("name", PAPER)
def test_presets_are_the_published_sizes(name):
    config = TVTSv2Config.from_preset(name)
    text, vision = config.text_config, config.vision_config
    assert PAPER[name] == (
        vision.patch_size,
        *(vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads),
        *(text.hidden_size, text.num_hidden_layers, text.num_attention_heads),
        *(config.projection_dim, config.sorter_num_attention_heads),
        *(vision.hidden_act, vision.post_layernorm_scope, config.sorter_uses_class_token),
    )
    assert text.hidden_act == vision.hidden_act
    assert (text.vocab_size, text.max_position_embeddings, text.eos_token_id) == (49408, 77, 49407)
    assert (vision.image_size, vision.num_frames) == (224, 12)
    assert vision.intermediate_size == 4 * vision.hidden_size and text.intermediate_size == 4 * text.hidden_size
    assert (config.num_transcripts, config.sorter_num_hidden_layers) == (4, 2)
    assert (config.contrastive_temperature, config.sorting_loss_weight) == (0.05, 2.0)
    assert vision.layer_norm_eps == text.layer_norm_eps == 1e-5


@pytest.mark.parametrize("name", PAPER)
def test_published_sizes_build_on_the_meta_device(name):
    with torch.device("meta"):
        model = TVTSv2ForPreTraining(TVTSv2Config.from_preset(name))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert model.num_parameters() == CLIP_PARAMETERS[name] + num_new_parameters(*NEW_SIZES[name])


def test_the_small_preset_builds_a_model_of_a_few_million_parameters():
    config = TVTSv2Config.from_preset("tiny")
    assert TVTSv2ForPreTraining(config).num_parameters() < 5_000_000
    assert config.text_config.bos_token_id != config.text_config.eos_token_id


def test_preset_overrides_reach_the_fields_they_name_and_no_other():
    config = TVTSv2Config.from_preset("h14", num_transcripts=3, vision_config={"num_frames": 16})
    preset = TVTSv2Config.from_preset("h14")
    assert (config.num_transcripts, config.vision_config.num_frames) == (3, 16)
    config.num_transcripts, config.vision_config.num_frames = 4, 12
    assert config.to_dict() == preset.to_dict()


def test_unknown_presets_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'b8'; choose one of 'b32', 'b16', 'h14', 'tiny'"):
        TVTSv2Config.from_preset("b8")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": (224, 196)}, r"must be single integers .*\(224, 196\)"),
        ({"patch_size": 225}, r"patch_size must lie in 1..image_size=224, got 225"),
        ({"patch_size": 0}, "patch_size must lie in 1..image_size=224, got 0"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        ({"post_layernorm_scope": "class"}, r'must be "all" \(B family\) or "pooled" \(H family\), got \'class\''),
        ({"hidden_size": 100, "num_attention_heads": 3}, "not a multiple of the number of attention heads"),
    ],
)
def test_vision_fields_that_make_no_model_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TVTSv2VisionConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"projection_dim": 20, "sorter_num_attention_heads": 3}, r"projection_dim \(20\).*multiple of.*\(3\)"),
        ({"contrastive_temperature": 0.0}, "contrastive_temperature must be positive, got 0.0"),
        ({"num_transcripts": 0}, "num_transcripts must be at least 1, got 0"),
        ({"sorter_num_hidden_layers": 0}, "sorter_num_hidden_layers must be at least 1, got 0"),
        ({"projection_dim": "wide"}, "^TVTSv2Config: Field 'projection_dim' expected int, got str"),
        ({"vision_config": {"num_frames": 0}}, "^TVTSv2VisionConfig: num_frames must be at least 1, got 0"),
    ],
)
def test_fields_that_make_no_model_are_named(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        TVTSv2Config(**fields)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "tvtsv2", **fields}))
    with pytest.raises(ValueError, match=message):
        TVTSv2Config.from_pretrained(tmp_path)


def test_saved_and_read_again_every_field_is_the_same(tmp_path):
    config = TVTSv2Config.from_preset("h14", contrastive_temperature=0.07, vision_config={"num_frames": 16})
    config.save_pretrained(tmp_path)
    again = TVTSv2Config.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.text_config, TVTSv2TextConfig) and isinstance(again.vision_config, TVTSv2VisionConfig)


def test_the_saved_file_says_who_reads_it_once_and_at_the_top(tmp_path):
    TVTSv2Config.from_preset("tiny").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"]["AutoConfig"] == "configuration_tvtsv2.TVTSv2Config"
    assert saved["model_type"] == "tvtsv2"
    for tower in ("text_config", "vision_config"):
        assert "auto_map" not in saved[tower]


def test_a_tower_reads_its_part_of_the_whole_file(tmp_path):
    TVTSv2Config.from_preset("h14").save_pretrained(tmp_path)
    assert TVTSv2VisionConfig.from_pretrained(tmp_path).hidden_size == 1280
    assert TVTSv2TextConfig.from_pretrained(tmp_path).hidden_size == 1024
