"""Which step's weights a run ends with: stopped, best or broken ones."""

from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from tests.support.trainer_runs import make_samples, train
from training.run_script import check_finished, step_of_weights


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
