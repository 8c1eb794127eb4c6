"""The image stage: frames that match their captions, and training as the trainer's rules say."""

import numpy as np
import torch

from modeling_tvtsv2 import TVTSv2ForPreTraining
from processing import TVTSv2Processor, TVTSv2VideoProcessor
from tests.conftest import make_tiny_config
from training.arguments import PreTrainingArguments
from training.narrated_shapes import image_stage
from training.narrated_shapes.narration import SHAPE_NAMES
from training.narrated_shapes.scene_drawing import COLORS
from training.train_tokenizer import train_tokenizer
from training.trainer import TVTSv2Trainer


def test_captions_name_what_frames_show():
    frames, captions = image_stage.draw_batch(32, ("color",), np.random.default_rng(0))
    assert frames.shape == (image_stage.BATCH_SIZE, 1, 32, 32, 3) and frames.dtype == np.uint8
    shown = 0
    for frame, caption in zip(frames[:, 0].astype(int), captions, strict=True):
        (color,) = (name for name in COLORS if name in caption.lower().split())
        shown += (np.abs(frame - COLORS[color]).max(axis=-1) < 45).mean() > 0.02
        assert not any(name in caption for names in SHAPE_NAMES.values() for name in names)
    assert shown > 0.9 * len(captions)  # a shape may lie outside the crop
    again = image_stage.draw_batch(32, ("color",), np.random.default_rng(0))
    assert np.array_equal(again[0], frames) and again[1] == captions


def test_only_what_the_rules_train_moves_and_the_same_way_again(tmp_path, monkeypatch):
    monkeypatch.setattr(image_stage, "BATCH_SIZE", 4)
    _, texts = image_stage.draw_batch(24, ("shape",), np.random.default_rng(0))
    tokenizer = train_tokenizer(texts, tmp_path / "tokenizer", vocab_size=64, max_length=10)
    config = make_tiny_config(text={"num_hidden_layers": 2, "vocab_size": 64, "bos_token_id": 2, "eos_token_id": 3})
    crop_size = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    rules = [{"match": "text_model.encoder.layers.0.*", "frozen": True}, {"match": "*"}]
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        model = TVTSv2ForPreTraining(config)
        before = {name: tensor.clone() for name, tensor in model.named_parameters()}
        trainer = TVTSv2Trainer(
            model,
            PreTrainingArguments(str(tmp_path), use_cpu=True, report_to="none", parameter_rules=rules, warmup_steps=1),
            processing_class=TVTSv2Processor(TVTSv2VideoProcessor(crop_size=crop_size), tokenizer),
        )
        image_stage.train_on_images(trainer, 3)
        ends.append(dict(model.named_parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*map(dict.values, ends), strict=True))
    moved = {name for name, tensor in ends[0].items() if not torch.equal(tensor, before[name])}
    assert not any(name.startswith(("text_model.encoder.layers.0.", "sorter.")) for name in moved)
    assert {"text_projection.weight", "vision_model.embeddings.patch_embedding.weight"} <= moved
