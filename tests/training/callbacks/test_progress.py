"""What logs say: means, accuracies, rates, speed, memory; and that training does not look before it logs."""

import pytest
import torch

from tests.support.trainer_runs import make_samples, train
from training.callbacks.progress import TrainingProgress, contrastive_accuracy, peak_memory_bytes
from training.flops import count_step_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize("max_similarities", [1, 12, 100])
def test_contrastive_accuracy_counts_both_directions(max_similarities):
    videos = torch.eye(4)
    texts = torch.tensor([[2.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0.5, 0], [1, 0, 0, 0.1]])
    # Text 3 is nearest to video 0; video 3 is nearest to text 3 all the same: 3 of 4 texts and 4 of 4 videos are right.
    assert contrastive_accuracy(videos, texts, max_similarities) == pytest.approx(7 / 8)


def test_means_start_over_after_each_look():
    progress = TrainingProgress(CPU)
    for value in (1.0, 3.0):
        progress.add(4, contrastive_loss=torch.tensor(value), sorting_loss=None)
    progress.add(4, contrastive_loss=torch.tensor(5.0), sorting_loss=torch.tensor(7.0))
    logs = progress.read()
    assert (logs["contrastive_loss"], logs["sorting_loss"]) == (3.0, 7.0) and "contrastive_accuracy" not in logs
    progress.add(4, contrastive_loss=torch.tensor(2.0))
    assert progress.read()["contrastive_loss"] == 2.0


def test_speed_leaves_pauses_out(monkeypatch):
    clock = iter([10.0, 11.0, 20.0, 25.0, 28.0, 31.0, 31.0])
    monkeypatch.setattr("training.callbacks.progress.time.perf_counter", lambda: next(clock))
    progress = TrainingProgress(CPU, peak_tflops=1e-9)  # 1,000 operations per second
    event = (None, None, None)
    progress.on_epoch_begin(*event)  # at 10
    progress.on_step_begin(*event)  # at 11: waited 1 s
    progress.add(num_samples=32)
    progress.add_flops(4000)
    progress.on_step_end(*event)  # at 20
    progress.on_evaluate(*event)  # at 25: paused 5 s
    progress.on_save(*event)  # at 28: paused 3 s
    logs = progress.read()  # at 31: 21 s, of which 13 trained
    assert logs["samples_per_second"] == 32 / 13
    assert logs["data_wait_ratio"] == 1 / 13
    assert logs["mfu"] == pytest.approx(4000 / 13 / 1000)


def test_peak_memory_is_this_process_s():
    before = peak_memory_bytes(CPU)
    block = torch.ones(before // 4 + 2**24)  # more than all there was
    assert 2**20 < before < block.nbytes < peak_memory_bytes(CPU) < 2**40


def test_a_run_logs_everything(tmp_path):
    rules = [{"match": "sorter.*", "learning_rate": 1e-3}, {"match": "*", "learning_rate": 1e-5}]
    settings = {"parameter_rules": rules, "peak_tflops": 1000.0, "lr_milestones": [1], "num_train_epochs": 2}
    trainer = train(tmp_path, make_samples(8), logging_steps=1, **settings)
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(entries) == 4
    for entry in entries:
        for name in ("contrastive_accuracy", "sorting_accuracy", "data_wait_ratio", "mfu"):
            assert 0 <= entry[name] <= 1, name
        for name in ("contrastive_loss", "sorting_loss", "grad_norm", "samples_per_second", "peak_memory_gib"):
            assert entry[name] > 0, name
    # Of the step that is logged, and of every group.
    assert [entry["learning_rate/sorter.*"] for entry in entries] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
    assert [entry["learning_rate/*"] for entry in entries] == pytest.approx([1e-5, 1e-5, 1e-6, 1e-6])


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_operations_counted_are_the_batch_s(tmp_path, monkeypatch, chunk_size):
    seen = []
    monkeypatch.setattr(TrainingProgress, "add_flops", lambda self, flops: seen.append(flops))
    trainer = train(tmp_path, make_samples(4), max_steps=1, chunk_size=chunk_size, peak_tflops=1.0)
    sizes = {"num_kept_patches": 9, "num_transcripts": 4, "num_tokens": 10, "num_frames": 3}
    # The collator states the mask's count; these samples have none, so all 9 patches count.
    assert (
        seen == [count_step_flops(trainer.model, batch_size=4, **sizes).total] and trainer.state.total_flos == seen[0]
    )


def test_no_step_looks_at_a_tensor(tmp_path, monkeypatch):
    """On an accelerator every `item()` waits for all that is under way."""
    looks = []
    monkeypatch.setattr(torch.Tensor, "item", lambda self, real=torch.Tensor.item: looks.append(1) or real(self))
    counts = []
    for num_steps in (2, 6):
        looks.clear()
        train(tmp_path / str(num_steps), make_samples(24), max_steps=num_steps, logging_steps=100)
        counts.append(len(looks))
    assert counts[0] == counts[1]


def test_chunks_train_as_whole_batches_do(tmp_path):
    seen = []
    for chunk_size in (None, 3):
        torch.manual_seed(0)
        settings = {"max_steps": 3, "optim": "sgd", "learning_rate": 0.05, "logging_steps": 1}
        trainer = train(tmp_path, make_samples(8), chunk_size=chunk_size, **settings)
        weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
        names = ("loss", "contrastive_loss", "sorting_loss", "contrastive_accuracy", "sorting_accuracy")
        seen.append((weights, [entry[name] for entry in trainer.state.log_history[:3] for name in names]))
    torch.testing.assert_close(seen[0][0], seen[1][0], rtol=1e-4, atol=1e-5)
    assert seen[0][1] == pytest.approx(seen[1][1], rel=1e-4)
