"""The recipe as released: over W processes, a contrastive loss weight of 1/W has the release's gradients."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from tests.support.distributed_steps import loss_and_gradients, make_joined_batch, make_trainer, part_of
from tests.support.processes import exit_codes, start_processes
from training.video_trainer import NOT_FOR_THE_MODEL

BATCH_SIZE = 8  # of all processes


def gather_as_released(features: torch.Tensor) -> torch.Tensor:
    """Return the rows of all processes, with a gradient of this process's rows alone, not summed over processes."""
    parts = [torch.empty_like(features) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, features.detach())
    parts[dist.get_rank()] = features
    return torch.cat(parts)


def step_as_released(model, config, batch: dict) -> None:
    """One backward pass through DDP, which averages gradients over processes, with the release's losses."""
    outputs = model(**{name: value for name, value in batch.items() if name not in NOT_FOR_THE_MODEL})
    embeds = (gather_as_released(features) for features in (outputs.video_embeds, outputs.text_embeds))
    loss = contrastive_loss(*embeds, config.contrastive_temperature)
    (loss if outputs.sorting_loss is None else loss + outputs.sorting_loss).backward()


def _work(folder: str, num_transcripts: int) -> None:
    trainer = make_trainer(folder, ddp_backend="gloo", ddp_find_unused_parameters=True)
    model = trainer.accelerator.prepare(trainer.model)
    rank, size = dist.get_rank(), BATCH_SIZE // dist.get_world_size()
    batch = part_of(make_joined_batch(BATCH_SIZE, num_transcripts), slice(rank * size, (rank + 1) * size))
    trainer.args.contrastive_loss_weight = 1 / dist.get_world_size()
    seen = {"ours": loss_and_gradients(trainer, model, batch)["gradients"]}
    trainer.model.zero_grad()
    step_as_released(model, trainer.model.config, batch)
    seen["released"] = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    torch.save(seen, Path(folder) / f"{rank}.pt")


@pytest.mark.parametrize("num_transcripts", [4, 1])
@pytest.mark.parametrize("num_processes", [2, 4])
def test_a_weight_of_one_over_w_is_the_release_s_backward_pass(tmp_path, num_processes, num_transcripts):
    processes = start_processes(num_processes, _work, str(tmp_path), num_transcripts)
    assert exit_codes(processes, timeout_seconds=900) == [0] * num_processes
    whole = make_trainer(tmp_path)
    joined = loss_and_gradients(whole, whole.model, make_joined_batch(BATCH_SIZE, num_transcripts))["gradients"]
    num_compared, num_differing = 0, 0
    for rank in range(num_processes):
        seen = torch.load(tmp_path / f"{rank}.pt")
        for name, released in seen["released"].items():
            assert (seen["ours"][name] is None) == (released is None), name
            # What softmax cancels (a bias of all keys) is rounding alone.
            if released is not None and released.norm() > 1e-8:
                error = (seen["ours"][name] - released).norm() / released.norm()
                assert error <= 1e-6, name
                num_compared += 1
                num_differing += not torch.allclose(released, joined[name])
    # It is not the joined batch's gradient: contrast counts 1/W.
    assert num_compared > 40 * num_processes and num_differing > 40 * num_processes
