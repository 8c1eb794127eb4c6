"""A loss that is not a number ends the run, with the videos' names, and before anything broken is saved."""

import json

import pytest
import torch

from tests.support.trainer_runs import make_samples, train
from training.callbacks.finite_loss import FiniteLossGuard

CPU = torch.device("cpu")
MODEL = torch.nn.Linear(2, 2)


def test_finite_losses_pass_and_are_forgotten(tmp_path):
    guard = FiniteLossGuard(tmp_path, 0, CPU)
    for step in range(3):
        guard.add(torch.tensor(float(step)), step, ["a"])
        guard.check(MODEL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_bad_batch_and_the_one_before_are_named(tmp_path, value):
    guard = FiniteLossGuard(tmp_path / "run", 3, CPU)
    guard.add(torch.tensor(1.0), 6, ["a", "b"])
    guard.check(MODEL)
    for step, loss in ((7, value), (8, float("nan"))):
        guard.add(torch.tensor(loss), step, [f"video{step}"])
    with pytest.raises(FloatingPointError, match=r"loss of step 7 was (nan|inf|-inf)\. .*nonfinite_loss_3\.json"):
        guard.check(MODEL)
    record = json.loads((tmp_path / "run" / "nonfinite_loss_3.json").read_text())
    assert record["step"] == 7 and record["video_ids"] == ["video7"]
    assert record["batch_before"] == {"step": 6, "video_ids": ["a", "b"]}


def test_a_run_stops_before_it_saves(tmp_path):
    samples = make_samples(8)
    samples[5]["pixel_values_videos"][0] = float("nan")
    with pytest.raises(FloatingPointError):
        train(tmp_path, samples, max_steps=4, logging_steps=100, save_strategy="steps", save_steps=2)
    record = json.loads((tmp_path / "nonfinite_loss_0.json").read_text())
    assert "5" in record["video_ids"] and record["step"] in (1, 2)
    assert not list(tmp_path.glob("checkpoint-*"))
