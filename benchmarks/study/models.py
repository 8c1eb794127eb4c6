"""The study's models: a small CLIP of transformers' own class, and TVTSv2 started from it as users start it."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from benchmarks.study.settings import Arm, Study
from benchmarks.study.synthetic_videos import NUM_TRANSCRIPTS
from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from modeling_tvtsv2.fast_linear import use_fast_linear
from training.train_tokenizer import END, PAD, SPECIAL_TOKENS, START

HEAD_WIDTH = 16
NUM_TEXT_POSITIONS = 32
NEW_PARAMETERS = ["*.temporal_attn.*", "*.layer_norm3.*", "*.temporal_embedding.*", "sorter.*"]


def _tower_configs(study: Study, vocab_size: int) -> dict:
    """Return the fields that CLIP's and TVTSv2's configurations share."""
    width = study.model.width
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // HEAD_WIDTH,
        "projection_dim": width,
    }
    text = tower | {
        "num_hidden_layers": study.model.num_text_layers,
        "vocab_size": vocab_size,
        "max_position_embeddings": NUM_TEXT_POSITIONS,
        "pad_token_id": SPECIAL_TOKENS.index(PAD),
        "bos_token_id": SPECIAL_TOKENS.index(START),
        "eos_token_id": SPECIAL_TOKENS.index(END),
    }
    vision = tower | {
        "num_hidden_layers": study.model.num_vision_layers,
        "image_size": study.videos.image_size,
        "patch_size": study.model.patch_size,
    }
    return {"text_config": text, "vision_config": vision, "projection_dim": width}


def make_clip(study: Study, vocab_size: int) -> CLIPModel:
    """An untrained CLIP: the image foundation model to be."""
    return CLIPModel(CLIPConfig(**_tower_configs(study, vocab_size)))


def _post_config(study: Study, vocab_size: int) -> TVTSv2Config:
    config = _tower_configs(study, vocab_size)
    config["vision_config"] |= {
        "num_frames": study.videos.num_frames,
        "temporal_initializer_range": study.post.temporal_initializer_range,
    }
    num_heads = study.model.width // HEAD_WIDTH
    return TVTSv2Config(**config, num_transcripts=NUM_TRANSCRIPTS, sorter_num_attention_heads=num_heads)


def start_from_clip(clip: Path, study: Study, arm: Arm, seed: int) -> TVTSv2ForPreTraining:
    """Return a TVTSv2 with the weights of a CLIP folder, what is new as initialized.

    An arm's `random_time_attention` is the configuration's `temporal_attention_init="identity"`: the model starts as
    CLIP all the same, and its queries and keys have gradients.

    Args:
        clip: written by `CLIPModel.save_pretrained`.
        seed: of the new weights.
    """
    torch.manual_seed(seed)
    kind = TVTSv2ForPreTraining if arm.stop_gradient else SortingTeachesText
    config = _post_config(study, CLIPConfig.from_pretrained(clip).text_config.vocab_size)
    if arm.random_time_attention:
        config.vision_config.temporal_attention_init = "identity"
    return use_fast_linear(kind.from_pretrained(clip, config=config))


class SortingTeachesText(TVTSv2ForPreTraining):
    """Pre-training without the stop-gradient between text tower and sorter; the same forward values."""

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        self.sorter.register_forward_pre_hook(self._attach)

    def get_text_features(self, *args, **kwargs):
        outputs = super().get_text_features(*args, **kwargs)
        self._transcripts = outputs.pooler_output
        return outputs

    def _attach(self, sorter, inputs: tuple) -> tuple:
        video_tokens, detached = inputs
        return video_tokens, self._transcripts.view_as(detached)


def parameter_rules(study: Study, arm: Arm) -> list[dict]:
    """Rules as in training/configs: the arm's last blocks of the text tower are tuned, the ones before are frozen."""
    frozen = [f"text_model.encoder.layers.{i}.*" for i in range(study.model.num_text_layers - arm.num_tuned_blocks)]
    if not arm.tunes_rest_of_text:
        frozen += ["text_model.embeddings.*", "text_model.final_layer_norm.*", "text_projection.*"]
    rules = [{"match": frozen, "frozen": True}] if frozen else []
    new = {"match": NEW_PARAMETERS, "learning_rate": study.post.new_rate}
    return [*rules, new, {"match": "*", "learning_rate": study.post.clip_rate}]
