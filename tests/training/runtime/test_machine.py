"""A result says how it was made."""

import sys

import torch

from training.runtime.machine import describe_run


def test_names_command_device_and_versions(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training/run_pretrain.py", "--output_dir", "my runs/1"])
    described = describe_run(torch.device("cpu"))
    assert described["command"] == "accelerate launch training/run_pretrain.py --output_dir 'my runs/1'"
    assert described["device"].endswith("cores")
    assert torch.__version__.startswith(described["torch"].split("+")[0])
    assert {"python", "transformers", "accelerate", "av"} < set(described)
