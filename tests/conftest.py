"""What every test starts from: no network, one seed, one thread, and models small enough to build in milliseconds."""

import os

# Before any library reads them: a test that reaches for the network has to fail, everywhere.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import gc
import multiprocessing
import multiprocessing.context
import shutil

import pytest

from tests.support.processes import PRELOADED

# No model or torch is imported here: pytest-xdist's first process, which starts the others, reads this file too.
# Imports make a million objects that stay, which the collector of garbage would walk over and over.
gc.disable()
# Whichever test comes first starts the server that processes are forked from; it has then imported what all tests need.
multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
multiprocessing.context.BaseContext.set_forkserver_preload = lambda self, module_names: None


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Fixtures of a session or a file, which come before `seeded`, compute in one thread as well."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded():
    """Every test draws the same random numbers and computes in one thread, alone or among others."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)  # the main job, run in this process, shares out all cores
    # As root, the AV1 encoder SVT-AV1 gives its caller real-time priority, which starves all other processes.
    if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def tiny_config():
    """A configuration of the B family: 3 x 3 patches of 8 pixels, up to 4 frames, one block a tower, K = 4."""
    from tests.support.tiny_models import make_tiny_config

    return make_tiny_config()


@pytest.fixture
def tiny_model(tiny_config):
    """A model of that configuration with random weights everywhere, also where it would start at zero or one."""
    from modeling_tvtsv2 import TVTSv2ForPreTraining
    from tests.support.tiny_models import randomized

    return randomized(TVTSv2ForPreTraining(tiny_config)).eval()


@pytest.fixture
def tiny_batch():
    """Inputs of `tiny_model`: 2 videos of 3 frames, 4 transcripts each, 4 of 9 patches dropped."""
    from tests.support.tiny_models import make_tiny_batch

    return make_tiny_batch()


@pytest.fixture(scope="session")
def cpp_compiler() -> str:
    """The path of a C++ compiler, which torch's default compile backend needs on CPU; the test is skipped without."""
    path = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
    if path is None:
        pytest.skip("torch.compile's default backend needs a C++ compiler on CPU, and there is none here")
    return path
