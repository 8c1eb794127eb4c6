"""What every test starts from: no network, one seed, one thread, and models small enough to build in milliseconds."""

import os

# Before any library reads them: a test that reaches for the network has to fail, everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import multiprocessing
import multiprocessing.context
import shutil

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining
from tests.support.processes import PRELOADED

torch.set_num_threads(1)
# Whichever test comes first starts the server that processes are forked from; it has then imported what all tests need.
multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
multiprocessing.context.BaseContext.set_forkserver_preload = lambda self, module_names: None


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers and computes in one thread, alone or among others."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the main job, run in this process, shares out all cores
    # As root, the AV1 encoder SVT-AV1 gives its caller real-time priority, which starves all other processes.
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def tiny_config() -> TVTSv2Config:
    """A configuration of the B family: 3 x 3 patches of 8 pixels, up to 4 frames, one block a tower, K = 4."""
    return make_tiny_config()


@pytest.fixture
def tiny_model(tiny_config) -> TVTSv2ForPreTraining:
    """A model of that configuration with random weights everywhere, also where it would start at zero or one."""
    return randomized(TVTSv2ForPreTraining(tiny_config)).eval()


@pytest.fixture
def tiny_batch() -> dict[str, torch.Tensor]:
    """Inputs of `tiny_model`: 2 videos of 3 frames, 4 transcripts each, 4 of 9 patches dropped."""
    return make_tiny_batch()


@pytest.fixture(scope="session")
def cpp_compiler() -> str:
    """The path of a C++ compiler, which torch's default compile backend needs on CPU; the test is skipped without."""
    path = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if path is None:
        pytest.skip("torch.compile's default backend needs a C++ compiler on CPU, and there is none here")
    return path


def make_tiny_config(*, text: dict | None = None, vision: dict | None = None, **fields) -> TVTSv2Config:
    """Returns the smallest configuration in which no two sizes are the same by accident."""
    text_config = {
        "vocab_size": 40,
        "hidden_size": 24,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "max_position_embeddings": 10,
        "bos_token_id": 38,
        "eos_token_id": 39,
        "pad_token_id": 0,
    }
    vision_config = {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 24,
        "patch_size": 8,
        "num_frames": 4,
    }
    return TVTSv2Config(
        text_config=text_config | (text or {}),
        vision_config=vision_config | (vision or {}),
        **({"projection_dim": 20, "sorter_num_attention_heads": 2} | fields),
    )


def make_tiny_batch(num_frames: int = 3) -> dict[str, torch.Tensor]:
    """Returns the keyword arguments of a `TVTSv2ForPreTraining` of `make_tiny_config`."""
    input_ids = torch.randint(1, 38, (2, 4, 10))
    input_ids[..., 0] = 38
    ends = torch.tensor([[3, 5, 9, 4], [7, 6, 3, 8]])
    input_ids.scatter_(2, ends[..., None], 39)
    masked = torch.zeros(2, 9, dtype=torch.bool)
    masked[0, [0, 3, 4, 8]] = True
    masked[1, [1, 2, 5, 6]] = True
    return {
        "pixel_values_videos": torch.randn(2, num_frames, 3, 24, 24),
        "input_ids": input_ids,
        "bool_masked_pos": masked,
        "sorting_labels": torch.stack([torch.randperm(4) for _ in range(2)]),
    }


@torch.no_grad()
def randomized(module: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
    """Returns `module` with noise added to every parameter, so that no part of it is silent."""
    for parameter in module.parameters():
        parameter.add_(std * torch.randn_like(parameter))
    return module
