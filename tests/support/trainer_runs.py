"""Runs of TVTSv2Trainer on random samples."""

import re

import torch

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.support.distributed_steps import make_joined_batch, part_of
from tests.support.tiny_models import make_tiny_config
from training.arguments import PreTrainingArguments
from training.trainer import TVTSv2Trainer

FROZEN_RULES = [{"match": "text_model.encoder.layers.0.*", "frozen": True}, {"match": "*"}]
# The scores of attention are (q + b)(k + b'): a bias of all keys adds the same to all scores of a query, and softmax
# takes it away again. Its gradient is zero but for rounding.
KEY_BIAS = re.compile(r".*\.k_proj\.bias")


def make_samples(num_samples, num_transcripts=4):
    """A list of samples, their batch axis taken off."""
    batch = make_joined_batch(num_samples, num_transcripts)
    batch["pixel_values_videos"] = batch["pixel_values_videos"].float()
    return [
        {name: value for name, value in part_of(batch, index).items() if name != "num_broken"}
        for index in range(num_samples)
    ]


def collate(samples):
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0] if name != "video_ids"}
    return {**batch, "video_ids": [sample["video_ids"] for sample in samples]}


def train(
    folder,
    samples,
    *,
    model=None,
    trainer_class=TVTSv2Trainer,
    callbacks=None,
    train_sampler=None,
    eval_dataset=None,
    processing_class=None,
    resume_from=None,
    **settings,
):
    """A trainer that has trained; settings as for PreTrainingArguments."""
    model = model or TVTSv2ForPreTraining(
        make_tiny_config(text={"num_hidden_layers": 2}, vision={"num_hidden_layers": 2})
    )
    defaults = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-3,
        "parameter_rules": FROZEN_RULES,
    }
    args = PreTrainingArguments(output_dir=str(folder), **(defaults | settings))
    trainer = trainer_class(
        model,
        args,
        train_dataset=samples,
        eval_dataset=eval_dataset,
        data_collator=collate,
        processing_class=processing_class,
        callbacks=callbacks,
        train_sampler=train_sampler,
    )
    trainer.train(resume_from_checkpoint=resume_from)
    return trainer
