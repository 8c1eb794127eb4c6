"""Chunked contrast against the whole batch at once: losses and gradients, on one process and on two."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from modeling_tvtsv2 import TVTSv2ForPreTraining
from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from tests.support.processes import exit_codes, start_processes
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized
from training.contrast.chunked_contrast import backward_in_chunks, blockwise_contrastive_loss

TEMPERATURE = 0.05


def make_model(**config) -> TVTSv2ForPreTraining:
    """The same random model at each call, in every process."""
    torch.manual_seed(1)
    return randomized(TVTSv2ForPreTraining(make_tiny_config(**config))).train()


def make_batch(num_samples: int, num_transcripts: int = 4) -> dict[str, torch.Tensor]:
    """The same samples at each call, no two of them alike."""
    torch.manual_seed(2)
    parts = [make_tiny_batch() for _ in range(-(-num_samples // 2))]
    batch = {name: torch.cat([part[name] for part in parts])[:num_samples] for name in parts[0]}
    batch["input_ids"] = batch["input_ids"][:, :num_transcripts].clone()
    if num_transcripts == 1:
        del batch["sorting_labels"]
    return batch


def gradients_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def run_chunked(model: nn.Module, batch: dict, chunk_size: int, **engine):
    return backward_in_chunks(
        model,
        batch,
        chunk_size=chunk_size,
        temperature=TEMPERATURE,
        device=torch.device("cpu"),
        backward=torch.Tensor.backward,
        **engine,
    )


def assert_same_gradients(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        # float32 sums in another order; the embeddings' gradients at temperature 0.05 are of order 1 to 10.
        torch.testing.assert_close(ours[name], theirs[name], rtol=2e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("num_transcripts", [1, 4])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 100])
def test_loss_and_gradients_are_those_of_the_whole_batch(chunk_size, num_transcripts):
    batch = make_batch(7, num_transcripts)
    whole, chunked = make_model(), make_model()
    expected = whole(**batch)
    expected.loss.backward()
    outputs = run_chunked(chunked, batch, chunk_size)
    assert_same_gradients(gradients_of(chunked), gradients_of(whole))
    of_towers = {"text_model_output", "vision_model_output"}  # not kept over chunks
    assert outputs.keys() == expected.keys() - of_towers - ({"sorting_logits"} if num_transcripts == 1 else set())
    for name in outputs:
        torch.testing.assert_close(outputs[name], expected[name], rtol=1e-5, atol=1e-5)


def test_number_of_masked_patches_is_passed_on():
    batch = make_batch(4)
    expected, outputs = make_model()(**batch), run_chunked(make_model(), batch | {"num_masked_patches": 4}, 3)
    torch.testing.assert_close(outputs.loss, expected.loss)


def test_dropout_is_the_same_in_both_passes():
    """A chunk as large as the batch draws what the whole batch draws; smaller ones, what one after the other draws."""
    dropout = {"text": {"attention_dropout": 0.4}, "vision": {"attention_dropout": 0.4}}
    batch = make_batch(6)
    for chunk_size in (6, 2):
        reference, chunked = make_model(**dropout), make_model(**dropout)
        torch.manual_seed(5)
        run_chunked(chunked, batch, chunk_size)
        after = torch.rand(1)
        torch.manual_seed(5)
        slices = [slice(first, first + chunk_size) for first in range(0, 6, chunk_size)]
        parts = [reference(**{name: value[rows] for name, value in batch.items()}) for rows in slices]
        videos, texts = (torch.cat([getattr(p, n) for p in parts]) for n in ("video_embeds", "text_embeds"))
        sorting = torch.stack([part.sorting_loss for part in parts]).mean()
        (contrastive_loss(videos, texts, TEMPERATURE) + sorting).backward()
        assert_same_gradients(gradients_of(chunked), gradients_of(reference))
        assert torch.rand(1) == after  # replaying has not moved the generator


@pytest.mark.parametrize("max_similarities", [1, 9, 40, 81, 500])
def test_blockwise_loss_is_the_contrastive_loss(max_similarities):
    ours, theirs = (tuple(e.requires_grad_() for e in torch.randn(2, 9, 5).unbind()) for _ in range(2))
    theirs = tuple(e.detach().clone().requires_grad_() for e in ours)
    loss, expected = blockwise_contrastive_loss(*ours, 0.05, max_similarities), contrastive_loss(*theirs, 0.05)
    torch.testing.assert_close(loss, expected)
    for own, other in zip(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs), strict=True):
        torch.testing.assert_close(own, other)


def test_frozen_parameters_get_no_gradient():
    model = make_model()
    model.text_model.encoder.requires_grad_(False)
    run_chunked(model, make_batch(4), 2)
    assert not [name for name in gradients_of(model) if name.startswith("text_model.encoder")]


def test_memory_holds_one_chunk():
    """The tensors kept for the way back are as many for 16 samples as for 4."""

    def saved_bytes(num_samples: int) -> int:
        kept, peak = {}, [0]

        class Kept:
            def __init__(self, tensor):
                self.tensor = tensor
                kept[id(self)] = tensor.nbytes
                peak[0] = max(peak[0], sum(kept.values()))

            def __del__(self):
                kept.pop(id(self), None)

        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda box: box.tensor):
            run_chunked(make_model(), make_batch(num_samples), 2)
        return peak[0]

    assert saved_bytes(16) < 1.02 * saved_bytes(4)


def test_chunk_size_must_be_positive():
    with pytest.raises(ValueError, match="chunk_size must be at least 1, got 0"):
        run_chunked(make_model(), make_batch(2), 0)


def joined_batch_on_one_of_two(sizes: tuple[int, int], folder: str) -> None:
    """One of two processes: its samples in chunks of 2 under DDP; saves process id, losses and gradients."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    start = sum(sizes[:rank])
    batch = {name: value[start : start + sizes[rank]] for name, value in make_batch(sum(sizes)).items()}
    model = DistributedDataParallel(make_model(), find_unused_parameters=True)
    num_exchanges = []
    model.register_comm_hook(num_exchanges, count_and_average)
    outputs = run_chunked(model, batch, 2, no_sync=model.no_sync)
    record = {
        "process": os.getpid(),
        "contrastive_loss": outputs.contrastive_loss,
        "sorting_loss": outputs.sorting_loss,
        "gradients": gradients_of(model.module),
        "num_exchanges": len(num_exchanges),
        "num_buckets": len(model._get_ddp_logging_data()["bucket_sizes"].split(",")),
    }
    torch.save(record, f"{folder}/{rank}.pt")


def count_and_average(calls: list, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
    calls.append(1)
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0] / dist.get_world_size())


@pytest.mark.parametrize("sizes", [(4, 4), (5, 2)], ids=["even", "uneven"])
def test_two_processes_equal_one_on_the_joined_batch(tmp_path, sizes):
    processes = start_processes(2, joined_batch_on_one_of_two, sizes, str(tmp_path))
    assert exit_codes(processes, timeout_seconds=300) == [0, 0]
    records = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert len({record["process"] for record in records} | {os.getpid()}) == 3

    whole = make_model()
    expected = whole(**make_batch(sum(sizes)))
    expected.loss.backward()
    for record in records:
        assert_same_gradients(record["gradients"], gradients_of(whole))
        torch.testing.assert_close(record["contrastive_loss"], expected.contrastive_loss, rtol=1e-5, atol=1e-5)
        assert record["num_exchanges"] == record["num_buckets"]  # once, with the last chunk
    mean_sorting = (records[0]["sorting_loss"] + records[1]["sorting_loss"]) / 2
    torch.testing.assert_close(mean_sorting, expected.sorting_loss, rtol=1e-5, atol=1e-5)
