"""TVTSv2Trainer in one process: faithful to its rules, and open about what it saw."""

import copy
import json
import re
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback, TrainingArguments

from modeling_tvtsv2 import TVTSv2ForPreTraining
from processing import TVTSv2VideoProcessor
from tests.support.distributed_steps import make_joined_batch, make_trainer
from tests.support.tiny_models import make_tiny_config, randomized
from tests.support.trainer_runs import KEY_BIAS, collate, make_samples, train
from training.arguments import PreTrainingArguments
from training.callbacks.plan_file import PLAN_FILE
from training.evaluation import compute_metrics, retrieval_metrics, sorting_metrics
from training.sources.unusable_videos import TooManyBrokenVideosError
from training.trainer import TVTSv2Trainer

# --- uint8 frames ---


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_frames_train_and_evaluate_as_their_pixel_values(tmp_path, chunk_size):
    samples = make_samples(8)
    num_frames, _, height, width = samples[0]["pixel_values_videos"].shape
    video_processor = TVTSv2VideoProcessor(num_frames=num_frames)
    generator, as_frames, as_pixels = torch.Generator().manual_seed(0), [], []
    for sample in samples:
        del sample["pixel_values_videos"]
        frames = torch.randint(256, (num_frames, height, width, 3), dtype=torch.uint8, generator=generator)
        as_frames.append(sample | {"frames": frames})
        as_pixels.append(sample | {"pixel_values_videos": video_processor.normalize_frames(frames)})
    model = TVTSv2ForPreTraining(make_tiny_config(text={"num_hidden_layers": 2}, vision={"num_hidden_layers": 2}))
    processor, outcomes = SimpleNamespace(video_processor=video_processor), []
    for name, data in (("frames", as_frames), ("pixels", as_pixels)):
        options = {"chunk_size": chunk_size, "max_steps": 2, "eval_dataset": data, "processing_class": processor}
        trainer = train(tmp_path / name, data, model=copy.deepcopy(model), **options)
        outcomes.append((trainer.evaluate()["eval_loss"], trainer.model.state_dict()))
    (loss, weights), (expected_loss, expected_weights) = outcomes
    assert loss == expected_loss
    assert all(torch.equal(weight, expected_weights[name]) for name, weight in weights.items())
    assert not all(torch.equal(weight, model.state_dict()[name]) for name, weight in weights.items())


def test_frames_without_a_processor_are_refused(tmp_path):
    samples = make_samples(4)
    for sample in samples:
        del sample["pixel_values_videos"]
        sample["frames"] = torch.zeros(3, 24, 24, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match="pass one as processing_class, which is NoneType"):
        train(tmp_path, samples, max_steps=1)


def test_evaluation_leaves_no_trace_in_training(tmp_path):
    def weights(folder, **settings):
        torch.manual_seed(0)
        config = make_tiny_config(text={"num_hidden_layers": 2, "attention_dropout": 0.3})
        model = randomized(TVTSv2ForPreTraining(config))
        samples = make_samples(8)
        settings = {"max_steps": 3, "dataloader_num_workers": 1, **settings}
        return train(tmp_path / folder, samples, model=model, eval_dataset=samples, **settings).model.state_dict()

    alone = weights("alone")
    evaluated = weights("evaluated", eval_strategy="steps", eval_steps=1, report_to="tensorboard")
    for name, tensor in alone.items():
        assert torch.equal(tensor, evaluated[name]), name


# --- rules ---

# Time attention starts with queries and keys of zero. Each one's gradient is proportional to the other: both stay
# zero for ever, in the release too, and time attention averages over time with equal weights.
TEMPORAL_SCORES = re.compile(r"vision_model\..*\.temporal_attn\.[qk]_proj\.(weight|bias)")


@pytest.mark.parametrize("start", ["as initialised", "anywhere"])
def test_frozen_parameters_stay_to_the_bit_and_all_others_move(tmp_path, start):
    model = TVTSv2ForPreTraining(make_tiny_config(text={"num_hidden_layers": 2}, vision={"num_hidden_layers": 2}))
    if start == "anywhere":
        randomized(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    # Without decay, so that only gradients move anything.
    train(tmp_path, make_samples(8), model=model, max_steps=8, weight_decay=0.0)
    unmoved = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    frozen = {name for name in before if name.startswith("text_model.encoder.layers.0.")}
    temporal = {name for name in before if TEMPORAL_SCORES.fullmatch(name)} if start == "as initialised" else set()
    assert len(frozen) == 16
    assert frozen <= unmoved and temporal <= unmoved
    assert {name for name in unmoved - frozen - temporal if not KEY_BIAS.fullmatch(name)} == set()


def test_frozen_parameters_get_no_gradient_and_no_optimizer_state(tmp_path):
    trainer = train(tmp_path, make_samples(4), max_steps=1)
    frozen = [p for name, p in trainer.model.named_parameters() if name.startswith("text_model.encoder.layers.0.")]
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in frozen)
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in trainer.model.parameters()} - {id(p) for p in frozen}


def test_optimizer_groups_have_their_rule_s_rates(tmp_path):
    rules = [{"match": ["*temporal_attn*", "sorter.*"], "learning_rate": "1e-4"}, {"match": "*", "weight_decay": 0.2}]
    trainer = train(
        tmp_path, make_samples(4), max_steps=1, parameter_rules=rules, learning_rate=1e-7, weight_decay=0.05
    )
    groups = [(g["name"], g["lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups]
    assert groups == [
        ("*temporal_attn* sorter.*", 1e-4, 0.05),
        ("*temporal_attn* sorter.*", 1e-4, 0.0),
        ("*", 1e-7, 0.2),
        ("*", 1e-7, 0.0),
    ]


def test_milestones_divide_all_rates_at_the_start_of_their_epochs(tmp_path):
    rules = [{"match": "sorter.*", "learning_rate": 1e-3}, {"match": "*", "learning_rate": 1e-5}]
    rates = []

    class Recorder(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            rates.append([group["lr"] for group in optimizer.param_groups if group["weight_decay"]])

    settings = {"num_train_epochs": 4, "lr_milestones": [1, 3], "parameter_rules": rules, "weight_decay": 0.05}
    train(tmp_path, make_samples(8), callbacks=[Recorder()], **settings)
    factors = [1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01]  # two steps an epoch
    assert np.allclose(rates, [[1e-3 * factor, 1e-5 * factor] for factor in factors], rtol=1e-6)


def test_the_plan_is_saved_with_every_checkpoint(tmp_path):
    trainer = train(tmp_path, make_samples(4), max_steps=2, save_strategy="steps", save_steps=1)
    for step in (1, 2):
        assert json.loads((tmp_path / f"checkpoint-{step}" / PLAN_FILE).read_text()) == trainer.plan.to_dict()


# --- what it says ---


def test_logs_hold_the_mean_of_each_loss(tmp_path):
    samples = make_samples(8)
    trainer = train(tmp_path, samples, max_steps=4, logging_steps=2, learning_rate=0.0)
    entries = [entry for entry in trainer.state.log_history if "contrastive_loss" in entry]
    assert [entry["step"] for entry in entries] == [2, 4]
    for entry in entries:
        assert entry["contrastive_loss"] > 0 and entry["sorting_loss"] > 0
        assert entry["loss"] == pytest.approx(entry["contrastive_loss"] + entry["sorting_loss"], rel=1e-4)
        assert "num_broken" not in entry


class Waits(TorchDispatchMode, TrainerCallback):
    """Where values were taken from tensors, for which an accelerator has to be waited, by the step it happened in."""

    def __init__(self):
        super().__init__()
        self.seen: dict[int, list[str]] = {}
        self.step = 1

    def on_step_begin(self, args, state, control, **kwargs):
        self.step = state.global_step + 1

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            frames = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(None)]
            asked_by = next(name for name in frames[1:] if "/torch/" not in name)
            # The towers check their inputs on a CPU only; accelerate draws an epoch's seed there.
            if "/modeling_tvtsv2/" not in asked_by and not asked_by.endswith("accelerate/data_loader.py"):
                self.seen.setdefault(self.step, []).append(asked_by)
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_values_but_the_logged_ones(tmp_path):
    waits = Waits()
    with waits:
        train(tmp_path, make_samples(16), callbacks=[waits], max_steps=7, logging_steps=3)
    assert {3, 6} <= set(waits.seen) <= {3, 6, 7}, waits.seen  # 7: the run's mean loss


def test_broken_videos_are_logged_and_stop_training_above_the_stated_share(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.max_broken_share = 0.1
    batch = {**make_joined_batch(3), "num_broken": 1}
    with pytest.raises(
        TooManyBrokenVideosError, match=r"50 of 200 samples .* more than max_broken_share=0\.1"
    ) as error:
        for _ in range(100):
            trainer.record_batch(batch, torch.tensor(1.0))
    assert (trainer.num_samples, trainer.num_broken) == (150, 50) and str(tmp_path) in str(error.value)
    trainer.log({"loss": 1.0})
    assert trainer.state.log_history[-1]["num_broken"] == 50

    trainer.max_broken_share = 0.25
    for _ in range(50):
        trainer.record_batch(batch, torch.tensor(1.0))  # exactly the share is still allowed


def test_evaluation_covers_the_last_uneven_batch(tmp_path):
    torch.manual_seed(0)
    model = randomized(TVTSv2ForPreTraining(make_tiny_config()))
    samples = make_samples(7)
    for sample in samples:
        del sample["bool_masked_pos"]
    args = PreTrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, per_device_eval_batch_size=3
    )
    trainer = TVTSv2Trainer(model, args, eval_dataset=samples, data_collator=collate, compute_metrics=compute_metrics)
    metrics = trainer.evaluate()
    batch = collate(samples)
    with torch.no_grad():
        outputs = model.eval()(pixel_values_videos=batch["pixel_values_videos"], input_ids=batch["input_ids"])
    expected = {
        **sorting_metrics(outputs.sorting_logits.numpy(), batch["sorting_labels"].numpy()),
        **retrieval_metrics(outputs.video_embeds.numpy(), outputs.text_embeds.numpy()),
    }
    assert {name: metrics[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    assert metrics["eval_loss"] > 0
    assert trainer.num_samples == 0  # counts what is trained on


def test_the_given_sampler_decides_the_order(tmp_path):
    batches = []

    class Order(SequentialSampler):
        def __iter__(self):
            return iter([7, 3, 5, 1, 0, 2, 4, 6])

    class RecordingTrainer(TVTSv2Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            batches.append(inputs["video_ids"])
            return super().compute_loss(model, inputs, *args, **kwargs)

    samples = make_samples(8)
    settings = {"trainer_class": RecordingTrainer, "train_sampler": Order(samples), "num_train_epochs": 1}
    train(tmp_path, samples, **settings)
    assert batches == [["7", "3", "5", "1"], ["0", "2", "4", "6"]]


def test_plain_training_arguments_train_every_parameter_by_one_rule(tmp_path):
    args = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=1
    )
    trainer = TVTSv2Trainer(
        TVTSv2ForPreTraining(make_tiny_config()), args, train_dataset=make_samples(8), data_collator=collate
    )
    trainer.train()
    assert all(group.match == ["*"] for group in trainer.plan.groups)
    assert trainer.state.global_step == 1
