"""What transformers expects of any configuration, in the spirit of its configuration tests."""

import copy
import json

import pytest

from modeling_tvtsv2 import TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig

every_config = pytest.mark.parametrize("config_class", [TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig])


@every_config
def test_defaults_make_a_configuration_that_survives_every_round_trip(config_class, tmp_path):
    config = config_class()
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == config_class.model_type
    (tmp_path / "alone.json").write_text(config.to_json_string())
    for other in (
        config_class.from_pretrained(tmp_path),
        config_class.from_json_file(tmp_path / "alone.json"),
        config_class.from_dict(config.to_dict()),
        copy.deepcopy(config),
    ):
        assert {**other.to_dict(), "transformers_version": None} == {**config.to_dict(), "transformers_version": None}


@pytest.mark.parametrize("config_class", [TVTSv2TextConfig, TVTSv2VisionConfig])
def test_a_tower_s_configuration_loads_from_the_whole(config_class, tmp_path):
    whole = TVTSv2Config.from_preset("tiny")
    whole.save_pretrained(tmp_path)
    tower = config_class.from_pretrained(tmp_path)
    assert TVTSv2Config.from_pretrained(tmp_path, num_frames=3).vision_config.num_frames == 3
    assert tower.to_diff_dict() == getattr(whole, config_class.base_config_key).to_diff_dict()


@every_config
def test_common_fields_are_kept(config_class):
    fields = {"output_hidden_states": True, "return_dict": False, "dtype": "float16", "problem_type": "regression"}
    config = config_class(**fields, id2label={0: "a", 1: "b", 2: "c"})
    assert config.num_labels == 3 and config.output_hidden_states and config.problem_type == "regression"
    assert config_class.from_dict(config.to_dict()).to_dict() == config.to_dict()
    assert config_class(num_labels=5).num_labels == 5
