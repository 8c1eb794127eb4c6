"""The machine: where a result comes from, and how many cores and threads there are."""

import contextlib
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers import TrainingArguments

PACKAGES = ("torch", "triton", "torchvision", "transformers", "accelerate", "av", "numpy", "safetensors")


def describe_run(args: TrainingArguments) -> dict:
    """Return the command line, the device's name and the versions of what decides about a run's numbers."""
    is_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ  # set by its launcher
    launcher = ["accelerate", "launch"] if is_accelerate else ["python"]
    if args.world_size > 1:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", args.world_size))
        several = [] if here == args.world_size else ["--nnodes", str(args.world_size // here)]
        launcher = ["torchrun", *several, "--nproc_per_node", str(here)]
        if is_accelerate:
            launcher = ["accelerate", "launch", "--num_processes", str(args.world_size)]
    return {
        "command": shlex.join([*launcher, *sys.argv]),
        "device": device_name(args.device),
        **library_versions(),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide about numbers, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def device_name(device: torch.device) -> str:
    """Return the accelerator's name, or the processor's with the number of cores this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    cpu_file = Path("/proc/cpuinfo")
    if cpu_file.is_file():
        models = [line.split(":", 1)[1] for line in cpu_file.read_text().splitlines() if line.startswith("model name")]
        name = models[0].strip() if models else name
    return f"{name}, {count_cores()} cores"


def count_cores() -> int:
    """Return the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores(args: TrainingArguments) -> None:
    """Share out all cores: `accelerate launch` gives a process on the CPU one thread unless told otherwise.

    Each loading worker keeps a core to itself: threads that wait for one another at every operation are slowed down ten
    times over by a core that they have to share.
    """
    if args.device.type == "cpu" and int(os.environ.get("OMP_NUM_THREADS", 1)) == 1:
        torch.set_num_threads(max(1, count_cores() // args.world_size - args.dataloader_num_workers))
