"""Fine-tuning in two real processes (gloo on CPU), killed with SIGKILL and gone on with: equal to one process alone."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from tests.support.processes import exit_codes, start_processes, wait_for_checkpoint
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video
from training.run_finetune import main

TIMEOUT_SECONDS = 300
WORDS = ("red circle", "blue square", "green star", "moves")
# SGD: its steps are linear in the gradient, where Adam's would blow up the rounding of tiny ones.
RUNS = {
    "retrieval": ("pairs.csv", ("--task", "retrieval", "--lora_towers", "video", "text"), "text_to_video_median_rank"),
    "classification": ("labels.csv", ("--method", "full", "--max_grad_norm", "0.5"), "accuracy"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, eight videos to train on, and seven, which two processes cannot share evenly, to evaluate on."""
    place = tmp_path_factory.mktemp("finetuning_processes")
    write_small_folder(place / "model")
    for name, column, texts in (("pairs", "caption", WORDS), ("labels", "label", WORDS[:3])):
        rows = [f"{index}.mp4,{texts[index % len(texts)]}\n" for index in range(8)]
        (place / f"{name}.csv").write_text(f"path,{column}\n" + "".join(rows))
        (place / f"heldout_{name}.csv").write_text(f"path,{column}\n" + "".join(rows[:7]))
    for index in range(8):
        write_video(place / f"{index}.mp4", num_frames=8 + index, height=32 + 4 * index, width=72 - 4 * index)
    return place


def finetune(place: Path, task: str, name: str, batch_size: int) -> None:
    data, options, _ = RUNS[task]
    main(
        [
            *("--model", str(place / "model"), "--data", str(place / data), "--output_dir", str(place / name)),
            *(
                "--eval_data",
                str(place / f"heldout_{data}"),
                "--per_device_train_batch_size",
                str(batch_size),
                *options,
            ),
            *("--num_train_epochs", "4", "--optim", "sgd", "--learning_rate", "0.05", "--warmup_steps", "0"),
            *("--per_device_eval_batch_size", "2", "--use_cpu", "true", "--disable_tqdm", "true"),
            *("--dataloader_num_workers", "0", "--save_strategy", "steps", "--save_steps", "3"),
        ]
    )


def finetune_half(place: Path, task: str, name: str) -> None:
    """In one of two processes: the run of `finetune` with half the batch."""
    finetune(place, task, name, 2)
    assert dist.get_world_size() == 2


@pytest.mark.parametrize("task", RUNS)
def test_two_processes_killed_and_gone_on_with_end_where_one_does(place, task):
    finetune(place, task, f"{task}_alone", 4)
    processes = start_processes(2, finetune_half, place, task, f"{task}_together")
    folder = place / f"{task}_together"
    wait_for_checkpoint(folder / "checkpoint-3", processes, TIMEOUT_SECONDS)  # in the second epoch of two steps
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert not (folder / "config.json").exists() and not (folder / "eval_results.json").exists()

    processes = start_processes(2, finetune_half, place, task, f"{task}_together")
    assert exit_codes(processes, TIMEOUT_SECONDS) == [0, 0]
    alone, together, start = (
        load_file(place / name / "model.safetensors") for name in (f"{task}_alone", f"{task}_together", "model")
    )
    moved = [name for name, tensor in alone.items() if name in start and not torch.equal(tensor, start[name])]
    assert moved
    for name, tensor in alone.items():
        torch.testing.assert_close(
            together[name], tensor, atol=2e-5, rtol=1e-4, msg=lambda text, name=name: name + text
        )
    results = [
        json.loads((place / f"{task}_{name}" / "eval_results.json").read_text()) for name in ("alone", "together")
    ]
    assert results[0]["optimizer_steps"] == results[1]["optimizer_steps"] == 8
    metric = RUNS[task][-1]
    # Ranks of 7 videos, each judged once among all: half ranks would tell of one that two processes brought in.
    assert results[1][metric] == pytest.approx(results[0][metric])
