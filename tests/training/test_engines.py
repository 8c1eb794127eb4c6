"""The Accelerate configurations, by accelerate's own parser; and FSDP2's sharding, in two real processes on CPU."""

import functools
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from modeling_tvtsv2.modeling_tvtsv2 import contrastive_loss
from tests.support.processes import exit_codes, start_processes
from tests.training.contrast.test_chunked_contrast import TEMPERATURE, assert_same_gradients, make_batch, make_model
from training.arguments import DEFAULT_CONFIG
from training.contrast.chunked_contrast import backward_in_chunks
from training.contrast.gather import gather_batch_sizes, gather_with_gradient
from training.parameter_rules import ParameterPlan

FOLDER = DEFAULT_CONFIG.parent / "accelerate"
BLOCKS = {"CLIPEncoderLayer", "TVTSv2VideoLayer", "TVTSv2SorterLayer"}
RULES = [
    {"match": ["text_model.encoder.*", "text_model.embeddings.*"], "frozen": True},
    {"match": ["sorter.*", "*.temporal_attn.*"], "learning_rate": 1e-2},
    {"match": "*", "learning_rate": 1e-4},
]


@pytest.mark.parametrize(
    ("name", "engine", "num_processes", "num_machines"),
    [
        ("one_gpu", "NO", 1, 1),
        ("ddp", "MULTI_GPU", 8, 1),
        ("fsdp2", "FSDP", 8, 1),
        ("zero2", "DEEPSPEED", 8, 1),
        ("two_nodes", "MULTI_GPU", 16, 2),
    ],
)
def test_accelerate_reads_each_configuration(name, engine, num_processes, num_machines):
    path = FOLDER / f"{name}.yaml"
    config = load_config_from_file(str(path))  # unknown keys are errors
    assert config.distributed_type.value == engine
    assert (config.num_processes, config.num_machines) == (num_processes, num_machines)
    # The command in the file starts with this file, and names scripts that are there.
    command = next(line for line in path.read_text().splitlines() if "accelerate launch" in line)
    words = command.removeprefix("#").split()
    assert words[words.index("--config_file") + 1] == f"training/configs/accelerate/{name}.yaml"
    assert all((FOLDER.parents[2] / word).is_file() for word in words if word.endswith((".py", ".yaml")))


def test_every_configuration_is_tested():
    assert {path.stem for path in FOLDER.iterdir()} == {"one_gpu", "ddp", "fsdp2", "zero2", "two_nodes"}


@pytest.fixture
def fsdp_environment(monkeypatch):
    """What `accelerate launch` would hand to each process under fsdp2.yaml."""
    args = launch_command_parser().parse_args(["--config_file", str(FOLDER / "fsdp2.yaml"), "script.py"])
    args, _, _ = _validate_launch_command(args)
    for name, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(name, value)


def test_fsdp2_shards_block_by_block(fsdp_environment):
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    model = make_model()
    plugin.set_auto_wrap_policy(model)
    names = {block.__name__ for block in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]}
    assert names == BLOCKS and names <= set(model._no_split_modules)


@pytest.fixture
def deepspeed_environment(monkeypatch):
    """What `accelerate launch` would hand to each process under zero2.yaml."""
    args = launch_command_parser().parse_args(["--config_file", str(FOLDER / "zero2.yaml"), "script.py"])
    args, defaults, _ = _validate_launch_command(args)
    args.deepspeed_fields_from_accelerate_config = ",".join([*defaults.deepspeed_config, "mixed_precision"])
    _, environment = prepare_deepspeed_cmd_env(args)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_zero2_spreads_gradients_and_optimizer_and_nothing_else(deepspeed_environment):
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    plugin = DeepSpeedPlugin()
    zero = plugin.deepspeed_config["zero_optimization"]
    assert zero["stage"] == 2 and not plugin.zero3_init_flag
    assert zero["offload_optimizer"]["device"] == zero["offload_param"]["device"] == "none"
    deepspeed_config = pytest.importorskip("deepspeed.runtime.config")
    # What Trainer fills in for "auto".
    sizes = {"train_micro_batch_size_per_gpu": 2, "train_batch_size": 2, "gradient_accumulation_steps": 1}
    read = deepspeed_config.DeepSpeedConfig(plugin.deepspeed_config | sizes | {"gradient_clipping": 0.0})
    assert read.zero_optimization_stage == 2 and read.gradient_clipping == 0


def test_each_node_gets_its_own_part():
    launch = ["--config_file", str(FOLDER / "two_nodes.yaml"), "--machine_rank", "1", "--main_process_ip", "10.0.0.7"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args([*launch, "script.py"]))
    prepare_multi_gpu_env(args)
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("static", "10.0.0.7:29500")


def shard(model: nn.Module) -> None:
    """As accelerate does it under fsdp2.yaml: each block, then what is left."""
    for module in model.modules():
        if type(module).__name__ in BLOCKS:
            fully_shard(module)
    fully_shard(model)


def step(model: nn.Module, batch: dict, chunk_size: int | None) -> None:
    """Gradients of the joined batch, at once or in chunks."""
    if chunk_size is not None:

        class NoSync:
            def __enter__(self):
                model.set_requires_gradient_sync(False)

            def __exit__(self, *_):
                model.set_requires_gradient_sync(True)

        settings = {"chunk_size": chunk_size, "temperature": TEMPERATURE, "device": torch.device("cpu")}
        backward_in_chunks(model, batch, backward=torch.Tensor.backward, no_sync=NoSync, **settings)
        return
    outputs = model(**batch)
    sizes = gather_batch_sizes(len(outputs.video_embeds), torch.device("cpu"))
    embeds = [gather_with_gradient(each, sizes) for each in (outputs.video_embeds, outputs.text_embeds)]
    share = len(outputs.video_embeds) * len(sizes) / sum(sizes)
    (contrastive_loss(*embeds, TEMPERATURE) + outputs.sorting_loss * share).backward()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def train_one_step(model: nn.Module, batch: dict, chunk_size: int | None) -> dict:
    """One AdamW step by RULES; gradients, weights and rates, unsharded."""
    plan = ParameterPlan(model, RULES, learning_rate=1e-4, weight_decay=0.05)
    optimizer = torch.optim.AdamW(plan.apply(model))
    step(model, batch, chunk_size)
    gradients = {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    rates = {group["name"]: (group["lr"], len(group["params"])) for group in optimizer.param_groups}
    weights = {name: whole(parameter.detach()).clone() for name, parameter in model.named_parameters()}
    return {"gradients": gradients, "weights": weights, "rates": rates}


def sharded_steps(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    rows = slice(0, 4) if rank == 0 else slice(4, 6)  # uneven
    batch = {name: value[rows] for name, value in make_batch(6).items()}
    for chunk_size in (None, 2):
        model = make_model()
        shard(model)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        torch.save(train_one_step(model, batch, chunk_size), f"{folder}/{rank}_{chunk_size}.pt")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    assert exit_codes(start_processes(2, sharded_steps, str(folder)), timeout_seconds=300) == [0, 0]
    return folder


@functools.cache
def one_process() -> dict:
    return train_one_step(make_model(), make_batch(6), None)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_fsdp2_has_the_gradients_of_one_process(two_processes, chunk_size):
    for rank in range(2):
        sharded = torch.load(two_processes / f"{rank}_{chunk_size}.pt")
        assert_same_gradients(sharded["gradients"], one_process()["gradients"])


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_rules_hold_under_fsdp2(two_processes, chunk_size):
    sharded, start = torch.load(two_processes / f"0_{chunk_size}.pt"), make_model()
    assert sharded["rates"] == one_process()["rates"]
    for name, parameter in start.named_parameters():
        moved = (sharded["weights"][name] - parameter.detach()).abs().max()
        if name.startswith(("text_model.encoder.", "text_model.embeddings.")):
            assert moved == 0, name
        else:
            # Adam's first step is the rate (weight decay aside), where a gradient is more than rounding.
            rate = 1e-2 if name.startswith("sorter.") or ".temporal_attn." in name else 1e-4
            assert moved < 1.2 * rate, name
            if "k_proj.bias" not in name:
                assert moved > 0.5 * rate, name
