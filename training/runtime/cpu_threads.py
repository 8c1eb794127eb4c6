"""Threads to compute with, where there is no accelerator."""

import os

import torch
from transformers import TrainingArguments

from training.runtime.machine import count_cores


def use_all_cores(args: TrainingArguments) -> None:
    """Shares out all cores: `accelerate launch` gives a process on the CPU one thread unless told otherwise.

    Each loading worker keeps a core to itself: threads that wait for one another at every operation are slowed down ten
    times over by a core they have to share.
    """
    if args.device.type == "cpu" and int(os.environ.get("OMP_NUM_THREADS", 1)) == 1:
        torch.set_num_threads(max(1, count_cores() // args.world_size - args.dataloader_num_workers))
