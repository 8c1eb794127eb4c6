"""Offloading by accelerate, adapters by PEFT and training by transformers' Trainer, through every embedding module."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, init_empty_weights, load_checkpoint_and_dispatch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from modeling_tvtsv2 import (
    TVTSv2ForPreTraining,
    TVTSv2ForVideoClassification,
    TVTSv2Model,
    TVTSv2TextModel,
    TVTSv2VisionModel,
)
from tests.support.tiny_models import make_tiny_batch, make_tiny_config, randomized

CLASSES = [TVTSv2ForPreTraining, TVTSv2Model, TVTSv2ForVideoClassification, TVTSv2VisionModel, TVTSv2TextModel]
EMBEDDINGS = ["patch_embedding", "position_embedding", "temporal_embedding", "type_embedding"]


def make_model(model_class):
    """Return a model with random weights and its inputs."""
    config = make_tiny_config(num_labels=3, vision={"num_hidden_layers": 2})
    batch = make_tiny_batch()
    pixels = {"pixel_values_videos": batch["pixel_values_videos"]}
    inputs = {
        TVTSv2ForPreTraining: batch,
        TVTSv2Model: {"input_ids": batch["input_ids"][:, 0], **pixels},
        TVTSv2TextModel: {"input_ids": batch["input_ids"][:, 0]},
    }.get(model_class, pixels)
    towers = {TVTSv2VisionModel: config.vision_config, TVTSv2TextModel: config.text_config}
    return randomized(model_class(towers.get(model_class, config))).eval(), inputs


@torch.no_grad()
def run(model, inputs) -> list[torch.Tensor]:
    return [value for value in model(**inputs).to_tuple() if isinstance(value, torch.Tensor)]


# --- accelerate --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", CLASSES)
def test_offloaded_weights_give_the_same(model_class, tmp_path):
    model, inputs = make_model(model_class)
    expected = run(model, inputs)
    offloaded = cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))
    assert all(parameter.device.type == "meta" for parameter in offloaded.parameters())
    torch.testing.assert_close(run(offloaded, inputs), expected, rtol=0, atol=0)
    offloaded = disk_offload(copy.deepcopy(model), tmp_path, execution_device=torch.device("cpu"))
    assert all(parameter.device.type == "meta" for parameter in offloaded.parameters())
    torch.testing.assert_close(run(offloaded, inputs), expected, rtol=0, atol=0)


@pytest.mark.parametrize("model_class", CLASSES)
def test_device_maps_with_disk_give_the_same(model_class, tmp_path):
    model, inputs = make_model(model_class)
    model.save_pretrained(tmp_path / "model")
    expected = run(model_class.from_pretrained(tmp_path / "model"), inputs)
    size = sum(parameter.nbytes for parameter in model.parameters())
    loaded = model_class.from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": size // 2}, offload_folder=tmp_path / "disk"
    )
    assert "disk" in loaded.hf_device_map.values()
    torch.testing.assert_close(run(loaded, inputs), expected, rtol=0, atol=0)

    with init_empty_weights(include_buffers=False):
        empty = model_class(model.config)
    device_map = {
        name: "disk" if name in ("vision_model", "text_model", "embeddings", "encoder") else "cpu"
        for name, _ in model.named_children()
    }
    dispatched = load_checkpoint_and_dispatch(
        empty.eval(),
        tmp_path / "model",
        device_map=device_map,
        offload_folder=tmp_path / "dispatched",
        no_split_module_classes=model._no_split_modules,
    )
    torch.testing.assert_close(run(dispatched, inputs), expected, rtol=0, atol=0)


# --- embeddings are modules --------------------------------------------------------------------------------------


def embedding_modules(model) -> dict[str, nn.Module]:
    return {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in EMBEDDINGS and not name.startswith("text_model")
    }


def test_every_module_runs_as_a_module(tiny_model, tiny_batch):
    calls = []
    modules = {name: module for name, module in tiny_model.named_modules() if not isinstance(module, nn.ModuleList)}
    for name, module in modules.items():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    tiny_model(**tiny_batch)
    assert sorted(calls) == sorted([*modules, "visual_projection"])  # of the embedding, and of all tokens


def test_replaced_embeddings_are_used(tiny_model, tiny_batch):
    tiny_batch["pixel_values_videos"] = tiny_batch["pixel_values_videos"].requires_grad_(False)
    expected = tiny_model(**tiny_batch)
    embeddings = tiny_model.vision_model.embeddings
    plain = nn.Conv2d(3, 32, kernel_size=8, stride=8, bias=False)
    plain.load_state_dict(embeddings.patch_embedding.state_dict())
    embeddings.patch_embedding = plain
    torch.testing.assert_close(tiny_model(**tiny_batch).video_embeds, expected.video_embeds)
    for module, name in (
        (embeddings, "patch_embedding"),
        (embeddings, "position_embedding"),
        (embeddings, "temporal_embedding"),
        (tiny_model.sorter, "type_embedding"),
    ):
        original = getattr(module, name)
        other = copy.deepcopy(original)
        nn.init.normal_(other.weight)
        setattr(module, name, other)
        logits = tiny_model(**tiny_batch).sorting_logits
        assert not torch.allclose(logits, expected.sorting_logits, atol=1e-3), name
        setattr(module, name, original)


@torch.no_grad()
def test_what_a_hook_keeps_is_not_overwritten():
    model, inputs = make_model(TVTSv2VisionModel)
    expected, kept = model(**inputs).pooler_output, {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *call, name=name: kept.update({name: (call[2], copy.deepcopy(call[2]))}))
    torch.testing.assert_close(model(**inputs).pooler_output, expected)
    for name, (output, copied) in kept.items():
        if isinstance(output, torch.Tensor):
            assert torch.equal(output, copied), name
    assert any(name.endswith("mlp.fc1") for name in kept)


@torch.no_grad()
def test_what_a_hook_of_the_activation_alone_keeps_is_not_overwritten():
    model, inputs = make_model(TVTSv2VisionModel)
    expected, kept = model(**inputs).pooler_output, []
    activation = model.encoder.layers[0].mlp.activation_fn
    activation.register_forward_hook(lambda module, inputs, output: kept.extend([inputs[0], output]))
    torch.testing.assert_close(model(**inputs).pooler_output, expected)
    torch.testing.assert_close(kept[0] * torch.sigmoid(1.702 * kept[0]), kept[1])


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize("name", ["fc1", "activation_fn", "every module"])
def test_backward_hooks_where_the_forward_works_in_place(name, register):
    model, inputs = make_model(TVTSv2VisionModel)
    model(**inputs).pooler_output.square().sum().backward()
    mlp, calls = model.encoder.layers[0].mlp, []
    expected = mlp.fc1.weight.grad.clone()
    model.zero_grad()
    if name == "every module":
        register = getattr(torch.nn.modules.module, register.replace("register", "register_module"))
    else:
        register = getattr(getattr(mlp, name), register)
    handle = register(lambda module, *_: calls.append(module))
    model(**inputs).pooler_output.square().sum().backward()
    handle.remove()
    torch.testing.assert_close(mlp.fc1.weight.grad, expected)
    assert {mlp.fc1, mlp.activation_fn} <= {*calls} if name == "every module" else calls == [getattr(mlp, name)]


# --- PEFT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", EMBEDDINGS)
def test_adapters_of_every_embedding_get_a_gradient(tiny_batch, target):
    model, _ = make_model(TVTSv2ForPreTraining)
    expected = model(**tiny_batch).sorting_logits
    modules = list(embedding_modules(model))
    adapted = get_peft_model(
        model, LoraConfig(target_modules=[name for name in modules if name.endswith(target)], init_lora_weights=False)
    )
    assert not torch.allclose(adapted(**tiny_batch).sorting_logits, expected, atol=1e-3)
    adapted(**tiny_batch).loss.backward()
    adapters = {name: p.grad for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(adapters) == 2
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in adapters.values()), adapters.keys()
    merged = adapted.eval()(**tiny_batch).sorting_logits
    torch.testing.assert_close(adapted.merge_and_unload()(**tiny_batch).sorting_logits, merged, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*use_reentrant.*")
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("model_class", [TVTSv2ForPreTraining, TVTSv2Model, TVTSv2ForVideoClassification])
def test_checkpointing_trains_every_adapter(model_class, use_reentrant):
    model, inputs = make_model(model_class)
    if model_class is TVTSv2Model:
        inputs["return_loss"] = True
    if model_class is TVTSv2ForVideoClassification:
        inputs["labels"] = torch.tensor([0, 2])
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).train()
    # In this order, as by Trainer.
    adapted.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    adapted(**inputs).loss.backward()
    adapters = {name: p.grad for name, p in adapted.named_parameters() if "lora_" in name}
    silent = [name for name, gradient in adapters.items() if gradient is None or gradient.abs().max() == 0]
    assert adapters and not silent


@pytest.mark.parametrize("task_type", ["FEATURE_EXTRACTION", "SEQ_CLS"])
@pytest.mark.parametrize("model_class", [TVTSv2VisionModel, TVTSv2ForVideoClassification, TVTSv2Model])
def test_wrappers_of_a_task_type_pass_their_unset_arguments(model_class, task_type):
    model, inputs = make_model(model_class)
    expected = run(model, inputs)
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type=task_type))
    torch.testing.assert_close(run(adapted, inputs), expected, rtol=0, atol=0)


# --- Trainer -----------------------------------------------------------------------------------------------------


def train(model, samples: list[dict], folder, **arguments) -> list[float]:
    """Return the losses that Trainer logs."""
    loss = arguments.pop("loss", None)
    trainer = Trainer(
        model,
        TrainingArguments(
            folder, report_to=[], logging_steps=1, save_strategy="no", disable_tqdm=True, use_cpu=True, **arguments
        ),
        train_dataset=samples,
        compute_loss_func=loss,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_class", [TVTSv2VisionModel, TVTSv2TextModel])
def test_a_tower_is_trained_by_trainer(model_class, tmp_path, checkpointing):
    model, inputs = make_model(model_class)
    before = copy.deepcopy(model.state_dict())
    samples = [{name: value[index] for name, value in inputs.items()} for index in range(2)]
    train(
        model,
        [sample | {"labels": torch.zeros(())} for sample in samples],
        tmp_path,
        max_steps=1,
        learning_rate=0.1,
        activation_checkpointing=checkpointing,
        loss=lambda outputs, labels, num_items_in_batch: outputs.pooler_output.square().mean(),
    )
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("steps", [1, 4])
def test_accumulated_gradients_have_the_scale_of_one_batch(steps, tmp_path):
    """Four accumulated batches of one video make the step of one batch of four."""
    torch.manual_seed(0)
    model = TVTSv2ForVideoClassification(make_tiny_config(num_labels=3)).eval()
    samples = [{"pixel_values_videos": torch.randn(2, 3, 24, 24), "labels": torch.tensor(i % 3)} for i in range(4)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    expected = model(**batch).loss.item()
    losses = train(
        model,
        samples,
        tmp_path,
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=4 // steps,
        gradient_accumulation_steps=steps,
    )
    assert losses == [pytest.approx(expected, rel=1e-3)]
