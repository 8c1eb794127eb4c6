"""A result says how it was made."""

import sys
from types import SimpleNamespace

import torch

from training.runtime.machine import describe_run


def test_names_command_device_and_versions(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training/run_pretrain.py", "--output_dir", "my runs/1"])
    args = SimpleNamespace(device=torch.device("cpu"), world_size=1)
    described = describe_run(args)
    own = "training/run_pretrain.py --output_dir 'my runs/1'"
    assert described["command"] == f"python {own}"
    args.world_size = 2
    assert describe_run(args)["command"] == f"torchrun --nproc_per_node 2 {own}"
    args.world_size = 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert describe_run(args)["command"] == f"torchrun --nnodes 2 --nproc_per_node 2 {own}"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert describe_run(args)["command"] == f"accelerate launch --num_processes 4 {own}"
    assert described["device"].endswith("cores")
    assert torch.__version__.startswith(described["torch"].split("+")[0])
    assert {"python", "transformers", "accelerate", "av"} < set(described)
