"""One training step in several real processes, and what each of them saw."""

import functools
import os
import tempfile
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from modeling_tvtsv2 import TVTSv2ForPreTraining
from tests.support.processes import exit_codes, start_processes
from tests.support.tiny_models import make_tiny_config, randomized
from training.arguments import PreTrainingArguments
from training.contrast.gather import gather_batch_sizes, gather_with_gradient, num_processes
from training.trainer import TVTSv2Trainer

TIMEOUT_SECONDS = 900
FROZEN = "text_model.embeddings.*"


def make_trainer(folder, **settings) -> TVTSv2Trainer:
    """Return a trainer of the tiny model with weights from seed 0, in float64 so that sums in another order agree."""
    torch.manual_seed(0)
    model = randomized(TVTSv2ForPreTraining(make_tiny_config())).double().train()
    rules = [{"match": FROZEN, "frozen": True}, {"match": "*"}]
    settings = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "parameter_rules": rules} | settings
    return TVTSv2Trainer(model, PreTrainingArguments(output_dir=str(folder), **settings))


def make_joined_batch(batch_size: int, num_transcripts: int = 4) -> dict:
    """Return a batch as the collator makes them, the same in every process."""
    torch.manual_seed(1)
    ids = torch.randint(1, 38, (batch_size, num_transcripts, 10))
    ids[..., 0] = 38
    ids.scatter_(2, torch.randint(3, 10, (batch_size, num_transcripts, 1)), 39)
    masks = torch.zeros(batch_size, 9, dtype=torch.bool)
    for mask in masks:
        mask[torch.randperm(9)[:4]] = True
    batch = {
        "pixel_values_videos": torch.randn(batch_size, 3, 3, 24, 24, dtype=torch.float64),
        "input_ids": ids,
        "bool_masked_pos": masks,
        "num_broken": 0,
        "video_ids": [str(index) for index in range(batch_size)],
    }
    if num_transcripts > 1:
        batch["sorting_labels"] = torch.stack([torch.randperm(num_transcripts) for _ in range(batch_size)])
    return batch


def part_of(batch: dict, rows: slice) -> dict:
    """Return some rows of a batch."""
    return {name: value if isinstance(value, int) else value[rows] for name, value in batch.items()}


def loss_and_gradients(trainer: TVTSv2Trainer, model, batch: dict) -> dict:
    """Return the loss and every parameter's gradient of one `compute_loss`."""
    trainer.model.zero_grad()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    return {"loss": loss.detach(), "gradients": {k: g if g is None else g.clone() for k, g in gradients.items()}}


@functools.cache
def steps_in_processes(batch_sizes: tuple[int, ...]) -> list[dict]:
    """Return what `_work` saw in each process, in order of rank, where process r has batch_sizes[r] samples."""
    with tempfile.TemporaryDirectory() as folder:
        processes = start_processes(len(batch_sizes), _work, batch_sizes, folder)
        assert exit_codes(processes, TIMEOUT_SECONDS) == [0] * len(batch_sizes)
        return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(len(batch_sizes))]


def _work(batch_sizes: tuple[int, ...], folder: str) -> None:
    rank = int(os.environ["RANK"])
    settings = {"ddp_backend": "gloo", "ddp_find_unused_parameters": True}
    settings["accelerator_config"] = {"even_batches": False}  # sizes have to be exchanged
    trainer = make_trainer(folder, **settings)
    model = trainer._wrap_model(trainer.model_wrapped)
    model = trainer.accelerator.prepare(model)
    rows = slice(sum(batch_sizes[:rank]), sum(batch_sizes[: rank + 1]))
    seen = {
        "world_size": dist.get_world_size(),
        "num_processes": num_processes(),
        "process_id": os.getpid(),
        "is_ddp": isinstance(model, DistributedDataParallel),
        "gather": _gather(rank, batch_sizes[rank]),
    }
    # Sorting and captions in turn, as the sources do.
    for num_transcripts in (4, 1, 4):
        batch = part_of(make_joined_batch(sum(batch_sizes), num_transcripts), rows)
        seen[num_transcripts] = loss_and_gradients(trainer, model, batch)
    torch.save(seen, Path(folder) / f"{rank}.pt")


def _gather(rank: int, batch_size: int) -> dict:
    """Rows `10 * rank + i`; the loss of rank r weighs the joined rows 1, 2, 3, … times r + 1."""
    rows = (10 * rank + torch.arange(float(batch_size)))[:, None].repeat(1, 2).requires_grad_()
    sizes = gather_batch_sizes(batch_size, torch.device("cpu"))
    joined = gather_with_gradient(rows, sizes)
    weights = torch.arange(1.0, len(joined) + 1)[:, None] * (rank + 1)
    (joined * weights).sum().backward()
    return {"sizes": sizes, "joined": joined.detach(), "gradient": rows.grad}
