"""A run resumed in its second epoch trains on what it would have trained on, in one process and in two."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.conftest import make_tiny_config
from tests.support.processes import exit_codes, start_processes
from tests.support.trainer_runs import make_samples, train
from training.run_errors import check_finished, step_of_weights
from training.trainer import TVTSv2Trainer

NUM_SAMPLES, NUM_STEPS, SAVED_STEP = 12, 8, 4  # 3 steps per epoch of 4 samples


class ShuffledByEpoch(Sampler):
    """Indices in another order in each epoch."""

    def __init__(self):
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return NUM_SAMPLES

    def __iter__(self):
        return iter(np.random.default_rng(self.epoch).permutation(NUM_SAMPLES).tolist())


class RecordingTrainer(TVTSv2Trainer):
    """Keeps the videos of each batch."""

    def record_batch(self, inputs, loss):
        self.__dict__.setdefault("seen", []).append(inputs["video_ids"])
        super().record_batch(inputs, loss)


def _train_and_resume(folder: str, batch_size: int) -> None:
    outcomes = []
    settings = {"per_device_train_batch_size": batch_size, "max_steps": NUM_STEPS, "ddp_find_unused_parameters": False}
    settings |= {"save_strategy": "steps", "save_steps": SAVED_STEP}
    for name, resume_from in (("alone", None), ("resumed", f"{folder}/alone/checkpoint-{SAVED_STEP}")):
        torch.manual_seed(0)
        model = TVTSv2ForPreTraining(make_tiny_config(text={"num_hidden_layers": 2}))
        trainer = train(
            f"{folder}/{name}",
            make_samples(NUM_SAMPLES),
            model=model,
            trainer_class=RecordingTrainer,
            train_sampler=ShuffledByEpoch(),
            resume_from=resume_from,
            **settings,
        )
        outcomes.append({"seen": trainer.seen, "weights": model.state_dict(), "world_size": trainer.args.world_size})
    torch.save(outcomes, f"{folder}/{trainer.args.process_index}.pt")


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_run_resumed_in_its_second_epoch_ends_with_the_same_bits(tmp_path, num_processes):
    processes = start_processes(num_processes, _train_and_resume, str(tmp_path), 4 // num_processes)
    assert exit_codes(processes, timeout_seconds=900) == [0] * num_processes
    for rank in range(num_processes):
        alone, resumed = torch.load(tmp_path / f"{rank}.pt")
        assert alone["world_size"] == num_processes and len(alone["seen"]) == NUM_STEPS
        assert alone["seen"][:3] != alone["seen"][3:6]  # epochs differ
        assert resumed["seen"] == alone["seen"][SAVED_STEP:]
        assert all(torch.equal(weight, alone["weights"][name]) for name, weight in resumed["weights"].items())


class Stop(TrainerCallback):
    """Stops the run after a step, as a request by SIGTERM does."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


def test_a_run_that_was_stopped_is_not_finished(tmp_path):
    trainer = train(tmp_path, make_samples(8), max_steps=4, callbacks=[Stop()])
    with pytest.raises(SystemExit, match=r"stopped after step 2 of 4\. The same command resumes it"):
        check_finished(trainer)


def test_the_best_model_s_step_is_told(tmp_path):
    settings = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    settings |= {"learning_rate": 0.5, "optim": "sgd", "metric_for_best_model": "loss", "load_best_model_at_end": True}
    samples = make_samples(8)
    trainer = train(tmp_path, samples, eval_dataset=samples, greater_is_better=False, **settings)
    losses = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert step_of_weights(trainer) == best
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-5)
    trainer.args.load_best_model_at_end = False
    assert step_of_weights(trainer) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_found_before_it_is_saved(tmp_path, value):
    class Break(TrainerCallback):
        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            if state.global_step == 1:  # in the second step, after its loss
                with torch.no_grad():
                    model.text_projection.weight[0, 0] = value

    with pytest.raises(FloatingPointError, match=r"text_projection\.weight is not finite after step 2"):
        train(tmp_path, make_samples(8), callbacks=[Break()], max_steps=2, save_strategy="steps", save_steps=1)
    assert [path.name for path in Path(tmp_path).glob("checkpoint-*")] == ["checkpoint-1"]
