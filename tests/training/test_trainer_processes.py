"""TVTSv2Trainer over several processes and accumulated batches: as one process on the joined batch."""

import pytest
import torch
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.support.distributed_steps import loss_and_gradients, make_joined_batch, make_trainer, steps_in_processes
from tests.support.processes import exit_codes, start_processes
from tests.support.tiny_models import make_tiny_config, randomized
from tests.support.trainer_runs import KEY_BIAS, collate, make_samples, train

ACCUMULATING = {
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.0,
    "max_steps": 1,
    "parameter_rules": [{"match": "*"}],
}


def relative_error(one, other):
    return float((one - other).norm() / other.norm().clamp_min(1e-30))


@pytest.mark.parametrize("num_transcripts", [4, 1])
@pytest.mark.parametrize("batch_sizes", [(3, 2), (2, 1, 3)])
def test_processes_equal_one_on_the_joined_batch(tmp_path, batch_sizes, num_transcripts):
    processes = steps_in_processes(batch_sizes)
    # There were as many, they knew of each other, and their gradients went through DDP.
    assert len({seen["process_id"] for seen in processes}) == len(batch_sizes)
    for seen in processes:
        assert seen["world_size"] == seen["num_processes"] == len(batch_sizes) and seen["is_ddp"]

    trainer = make_trainer(tmp_path)
    alone = loss_and_gradients(trainer, trainer.model, make_joined_batch(sum(batch_sizes), num_transcripts))
    losses = [seen[num_transcripts]["loss"] for seen in processes]
    assert relative_error(torch.stack(losses).mean(), alone["loss"]) <= 1e-6
    num_compared = 0
    for name, gradient in alone["gradients"].items():
        for seen in processes:
            other = seen[num_transcripts]["gradients"][name]
            assert (other is None) == (gradient is None), name
            # What softmax cancels (a bias of all keys) is rounding alone.
            if gradient is not None and gradient.norm() > 1e-8:
                assert relative_error(other, gradient) <= 1e-6, name
                num_compared += 1
    assert num_compared > 40 * len(batch_sizes)


def test_one_process_has_the_model_s_own_loss(tmp_path):
    trainer = make_trainer(tmp_path)
    batch = make_joined_batch(3)
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert loss == outputs.loss and outputs.sorting_loss is not None
    captions = make_joined_batch(3, num_transcripts=1)
    loss, outputs = trainer.compute_loss(trainer.model, captions, return_outputs=True)
    assert loss == outputs.contrastive_loss and outputs.sorting_loss is None


class GradientRecorder(TrainerCallback):
    """Keeps the gradients of every optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        self.steps.append({name: gradient.clone() for name, gradient in gradients.items() if gradient is not None})


def test_accumulated_batches_are_averaged(tmp_path):
    samples = make_samples(4)
    model = randomized(TVTSv2ForPreTraining(make_tiny_config()))
    gradients = []
    for batch in (samples[:2], samples[2:]):
        model.zero_grad()
        model(**{name: value for name, value in collate(batch).items() if name != "video_ids"}).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    model.zero_grad()
    recorder, sampler = GradientRecorder(), SequentialSampler(samples)
    settings = {"per_device_train_batch_size": 2, **ACCUMULATING}
    train(tmp_path, samples, model=model, callbacks=[recorder], train_sampler=sampler, **settings)
    assert len(recorder.steps) == 1 and recorder.steps[0].keys() == gradients[0].keys()
    for name, gradient in recorder.steps[0].items():
        mean = (gradients[0][name] + gradients[1][name]) / 2
        assert torch.allclose(gradient, mean, rtol=1e-4, atol=1e-5), name


def test_accumulation_in_two_processes_equals_one_on_the_joined_batches(tmp_path):
    samples = make_samples(8)
    processes = start_processes(2, _accumulate, len(samples), str(tmp_path))
    assert exit_codes(processes, timeout_seconds=300) == [0, 0]
    in_two = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [seen["world_size"] for seen in in_two] == [2, 2]
    recorder = GradientRecorder()
    settings = {"per_device_train_batch_size": 4, **ACCUMULATING}
    model = randomized(TVTSv2ForPreTraining(make_tiny_config()))
    model.load_state_dict(in_two[0]["start"])
    sampler = SequentialSampler(samples)
    train(tmp_path / "alone", samples, model=model, callbacks=[recorder], train_sampler=sampler, **settings)
    for seen in in_two:
        assert seen["gradients"].keys() == recorder.steps[0].keys()
        for name, gradient in recorder.steps[0].items():
            if gradient.norm() > 1e-5:  # float32; less is rounding
                assert relative_error(seen["gradients"][name], gradient) < 1e-3, name


def _accumulate(num_samples: int, folder: str) -> None:
    torch.manual_seed(0)
    model, recorder = randomized(TVTSv2ForPreTraining(make_tiny_config())), GradientRecorder()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    samples = make_samples(num_samples)
    settings = {"per_device_train_batch_size": 2, "ddp_backend": "gloo", **ACCUMULATING}
    trainer = train(
        f"{folder}/run",
        samples,
        model=model,
        callbacks=[recorder],
        train_sampler=SequentialSampler(samples),
        **settings,
    )
    seen = {"world_size": trainer.args.world_size, "start": start, "gradients": recorder.steps[0]}
    torch.save(seen, f"{folder}/{trainer.args.process_index}.pt")


def test_frozen_parameters_stay_to_the_bit_in_two_processes(tmp_path):
    processes = start_processes(2, _train_in_process, str(tmp_path))
    assert exit_codes(processes, timeout_seconds=300) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first["world_size"] == second["world_size"] == 2
    unmoved = {name for name, tensor in first["start"].items() if torch.equal(tensor, first["end"][name])}
    frozen = {name for name in first["start"] if name.startswith("text_model.encoder.layers.0.")}
    assert len(frozen) == 16 and frozen <= unmoved
    assert all(KEY_BIAS.fullmatch(name) for name in unmoved - frozen)
    assert all(torch.equal(tensor, second["end"][name]) for name, tensor in first["end"].items())


def _train_in_process(folder: str) -> None:
    torch.manual_seed(0)
    config = make_tiny_config(text={"num_hidden_layers": 2}, vision={"num_hidden_layers": 2})
    model = randomized(TVTSv2ForPreTraining(config))
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    settings = {"per_device_train_batch_size": 2, "max_steps": 4, "weight_decay": 0.1, "ddp_backend": "gloo"}
    settings["ddp_find_unused_parameters"] = False  # as with sources that have nothing but transcripts
    trainer = train(f"{folder}/run", make_samples(8), model=model, **settings)
    end = {name: parameter.detach() for name, parameter in model.named_parameters()}
    seen = {"world_size": trainer.args.world_size, "start": start, "end": end}
    torch.save(seen, f"{folder}/{trainer.args.process_index}.pt")
