"""Conversion of the release's checkpoints: every wrapping, the three sizes, and nothing passed over in silence."""

import pickle

import pytest
import torch

from modeling_tvtsv2 import TVTSv2Config, TVTSv2ForPreTraining, TVTSv2Model
from modeling_tvtsv2 import convert_checkpoint as conversion
from modeling_tvtsv2.convert_checkpoint import convert_official_state_dict, infer_official_config
from tests.support.deterministic_weights import (
    FAMILIES,
    GOLDEN,
    golden_config,
    golden_train_batch,
    golden_video,
    official_state_dict,
)

PUBLISHED = {
    #       video: patch, width, layers; text: width, layers; projection
    "b32": (32, 768, 12, 512, 12, 512),
    "b16": (16, 768, 12, 512, 12, 512),
    "h14": (14, 1280, 32, 1024, 24, 1024),
}


def official_shapes(preset: str) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a checkpoint of the release, by its names: the golden model's, at the published widths."""
    patch, video, video_layers, text, text_layers, projection = PUBLISHED[preset]
    small = GOLDEN["B"]["config"]

    def widened(name: str, shape: list[int]) -> tuple[int, ...]:
        if name == "video_model.conv1.weight":
            return (video, 3, patch, patch)
        rows = {
            "video_model.positional_embedding": 1 + (224 // patch) ** 2,
            "text_positional_embedding": 77,
            "text_token_embedding.weight": 49408,
        }
        small_width, width = next(
            (small[key], width)
            for start, key, width in (
                ("video_model.", "v_width", video),
                ("text_", "t_width", text),
                ("pred_model.", "out", projection),
            )
            if name.startswith(start)
        )
        wide = {small_width * factor: width * factor for factor in (1, 3, 4)} | {small["out"]: projection}
        wide = {1: 1, 2: 2, 4: 4, 12: 12} | wide
        if name in rows:
            return (rows[name], width)
        return tuple(wide[length] for length in shape)

    shapes = {}
    for name, shape in GOLDEN["B"]["keys"].items():
        depth = {"video_model": video_layers, "text_model": text_layers, "pred_model": 2}.get(name.partition(".")[0], 0)
        if "blocks.0." in name:
            for layer in range(depth):
                shapes[name.replace("blocks.0.", f"blocks.{layer}.")] = widened(name, shape)
        elif "blocks." not in name:
            shapes[name] = widened(name, shape)
    return shapes


def published_state_dict(preset: str) -> dict[str, torch.Tensor]:
    """Returns tensors of the published shapes that hold no numbers."""
    return {name: torch.empty(shape, device="meta") for name, shape in official_shapes(preset).items()}


def without_sorter(state_dict: dict) -> dict:
    return {name: tensor for name, tensor in state_dict.items() if not name.startswith("pred_model.")}


@pytest.fixture
def publish_small(monkeypatch):
    """Returns a function that puts a family's golden model in the place of a published size, so that files stay small.

    The two golden models have the same shapes, which the published sizes have not, so one at a time.
    """

    def publish(family: str) -> None:
        presets = {name: TVTSv2Config.from_preset(name) for name in PUBLISHED}
        presets[{"B": "b32", "H": "h14"}[family]] = golden_config(family)
        monkeypatch.setattr(TVTSv2Config, "from_preset", lambda name: presets[name])

    return publish


def write_checkpoint(path, state_dict) -> str:
    torch.save(state_dict, path)
    return str(path)


# --- names and shapes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights},
        lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()},
        lambda weights: {
            "state_dict": {f"module.{name}": tensor for name, tensor in weights.items()},
            "epoch": 10,
            "arch": "TVTSv2",
            "optimizer": {"state": {}},
        },
    ],
    ids=["plain", "wrapped", "prefixed", "wrapped and prefixed"],
)
@pytest.mark.parametrize("has_sorter", [True, False])
def test_every_wrapping_loads_strictly(wrap, has_sorter):
    weights = official_state_dict("B")
    model = TVTSv2ForPreTraining(golden_config("B")) if has_sorter else TVTSv2Model(golden_config("B"))
    converted = convert_official_state_dict(wrap(weights if has_sorter else without_sorter(weights)))
    model.load_state_dict(converted, strict=True)
    expected = torch.tensor(GOLDEN["B"]["eval"]["video"])
    with torch.no_grad():
        actual = model.eval().get_video_features(golden_video(2, 5, 32)).pooler_output
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


def test_conversion_leaves_its_input_alone_and_shares_no_memory_between_tensors():
    weights = official_state_dict("B")
    names = list(weights)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    converted = convert_official_state_dict(weights)
    assert list(weights) == names
    query = converted["vision_model.encoder.layers.0.self_attn.q_proj.weight"]
    key = converted["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    assert query.untyped_storage().data_ptr() != key.untyped_storage().data_ptr()
    query.zero_()
    assert all(torch.equal(weights[name], before[name]) for name in names)


@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize("has_sorter", [True, False])
def test_published_sizes_are_told_apart_and_fit_strictly(preset, has_sorter):
    weights = published_state_dict(preset)
    weights = weights if has_sorter else without_sorter(weights)
    config = infer_official_config({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}})
    assert config.to_dict() == TVTSv2Config.from_preset(preset).to_dict()
    with torch.device("meta"):
        model = TVTSv2ForPreTraining(config) if has_sorter else TVTSv2Model(config)
    converted = convert_official_state_dict(weights)
    assert {n: t.shape for n, t in converted.items()} == {n: t.shape for n, t in model.state_dict().items()}


def test_a_size_that_was_never_published_is_refused_with_what_was_measured():
    with pytest.raises(
        ValueError, match=r"none of the sizes B/32, B/16 and H/14: .*'patch_size': 8, 'video_width': 64"
    ):
        infer_official_config(official_state_dict("B"))


@pytest.mark.parametrize("name", ["video_model.conv1.weight", "text_projection", "text_token_embedding.weight"])
def test_a_file_without_what_tells_the_size_is_refused(name):
    weights = published_state_dict("b16")
    del weights[name]
    with pytest.raises(ValueError, match=f"lacks '{name}', so it is no TVTSv2"):
        infer_official_config(weights)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("visual.proj", torch.zeros(3), "tensor 'visual.proj', which no TVTSv2 of the release has"),
        ("module.text_projection", torch.zeros(3), "tensor 'module.text_projection', which no TVTSv2"),
        ("text_projection", torch.zeros(3), r"'text_projection' has shape \(3,\)"),
        ("text_model.resblocks.0.attn.in_proj_bias", torch.zeros(10), r"in_proj_bias' has shape \(10,\)"),
        ("video_model.transformer.resblocks.0.attn.qkv.weight", torch.tensor(1.0), r"qkv.weight' has shape \(\)"),
        ("pred_model.type_embed", torch.tensor(1.0), r"type_embed' has shape \(\)"),
    ],
)
def test_tensors_that_cannot_be_converted_are_named(name, tensor, message):
    weights = official_state_dict("B") | {name: tensor}
    with pytest.raises(ValueError, match=message):
        convert_official_state_dict(weights)


def test_a_misshapen_tensor_by_which_sizes_are_told_apart_is_named():
    for shape in ((), (3,)):
        weights = published_state_dict("b16") | {"video_model.conv1.weight": torch.zeros(shape)}
        with pytest.raises(ValueError, match=r"'video_model.conv1.weight' has shape \("):
            infer_official_config(weights)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "got nothing instead"),
        ({"state_dict": {}}, "got nothing instead"),
        ({"epoch": 3, "config": {"a": 1}}, r"got \['epoch', 'config'\] instead"),
        ({1: torch.zeros(2)}, r"got \[1\] instead"),
    ],
)
def test_dicts_that_hold_something_else_are_refused(contents, message):
    for function in (convert_official_state_dict, infer_official_config):
        with pytest.raises(ValueError, match=message):
            function(contents)


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_file_loads_strictly_and_gives_the_release_s_numbers(family, publish_small, tmp_path):
    publish_small(family)
    path = write_checkpoint(tmp_path / "official.pth", {"state_dict": official_state_dict(family)})
    assert conversion.convert_checkpoint(path, str(tmp_path / "out")) is TVTSv2ForPreTraining
    model, report = TVTSv2ForPreTraining.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    golden = GOLDEN[family]["train"]
    with torch.no_grad():
        outputs = model(**golden_train_batch(family))
    torch.testing.assert_close(outputs.video_embeds, torch.tensor(golden["video"]), rtol=0, atol=2e-5)
    torch.testing.assert_close(outputs.sorting_logits, torch.tensor(golden["order_logits"]), rtol=0, atol=2e-5)
    assert outputs.loss.item() == pytest.approx(golden["loss_contrastive"] + golden["loss_sorting"], rel=1e-4)


def test_a_file_without_sorter_becomes_a_model_without_sorter(publish_small, tmp_path):
    publish_small("B")
    path = write_checkpoint(tmp_path / "official.pth", without_sorter(official_state_dict("B")))
    assert conversion.convert_checkpoint(path, str(tmp_path / "out")) is TVTSv2Model
    model, report = TVTSv2Model.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values())
    with torch.no_grad():
        actual = model.get_video_features(golden_video(2, 5, 32)).pooler_output
    torch.testing.assert_close(actual, torch.tensor(GOLDEN["B"]["eval"]["video"]), rtol=0, atol=2e-5)


def test_missing_left_over_and_misshapen_tensors_are_all_named_and_nothing_is_written(publish_small, tmp_path):
    publish_small("B")
    weights = official_state_dict("B")
    del weights["video_model.ln_post.bias"]
    del weights["video_model.transformer.resblocks.1.timeattn.qkv.bias"]
    weights["pred_model.blocks.2.norm1.weight"] = torch.ones(40)
    weights["pred_model.head.bias"] = torch.zeros(5)
    path = write_checkpoint(tmp_path / "official.pth", weights)
    with pytest.raises(ValueError, match="does not fit the model") as error:
        conversion.convert_checkpoint(path, str(tmp_path / "out"))
    assert str(error.value).splitlines()[1:] == [
        *(
            f"  missing: vision_model.encoder.layers.1.temporal_attn.{kind}_proj.bias"
            for kind in "kvq"  # in the model's own order
        ),
        "  missing: vision_model.post_layernorm.bias",
        "  left over: sorter.layers.2.layer_norm1.weight",
        "  sorter.head.bias: shape (5,) instead of (4,)",
    ]
    assert not (tmp_path / "out").exists()


def test_half_a_sorter_is_an_error_not_a_model_without_sorter(publish_small, tmp_path):
    publish_small("B")
    weights = official_state_dict("B")
    del weights["pred_model.type_embed"]
    path = write_checkpoint(tmp_path / "official.pth", weights)
    with pytest.raises(ValueError, match=r"missing: sorter\.type_embedding\.weight"):
        conversion.convert_checkpoint(path, str(tmp_path / "out"))


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("save", [torch.save, lambda contents, path: path.write_bytes(pickle.dumps(contents))])
def test_code_in_a_checkpoint_is_never_run(save, tmp_path):
    path, trace = tmp_path / "official.pth", tmp_path / "was_here"
    save({"state_dict": official_state_dict("B"), "extra": Malicious(trace)}, path)
    with pytest.raises(ValueError, match=r"official\.pth is not a PyTorch checkpoint of plain tensors"):
        conversion.convert_checkpoint(str(path), str(tmp_path / "out"))
    assert not trace.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("contents", [b"", b"no checkpoint", b"PK\x03\x04 cut off"])
def test_files_that_are_no_checkpoints_are_refused(contents, tmp_path):
    path = tmp_path / "official.pth"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"official\.pth is not a PyTorch checkpoint"):
        conversion.convert_checkpoint(str(path), str(tmp_path / "out"))


def test_a_checkpoint_that_is_no_dict_is_refused(tmp_path):
    path = write_checkpoint(tmp_path / "official.pth", [torch.zeros(3)])
    with pytest.raises(ValueError, match="holds a list, not tensors by name"):
        conversion.convert_checkpoint(path, str(tmp_path / "out"))


# --- real sizes --------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_b32_s_true_shapes(tmp_path):
    """A file of 186 million zeros that takes little space: each tensor is one number, repeated."""
    repeated = {name: torch.zeros(()).half().expand(shape) for name, shape in official_shapes("b32").items()}
    path = write_checkpoint(tmp_path / "TVTSv2_B_32.pth", {"state_dict": repeated})
    output_dir = tmp_path / "tvtsv2-b32"
    assert conversion.convert_checkpoint(path, str(output_dir)) is TVTSv2ForPreTraining
    config = TVTSv2Config.from_pretrained(output_dir)
    assert (config.vision_config.patch_size, config.dtype) == (32, torch.float16)
    weights = output_dir / "model.safetensors"
    assert weights.stat().st_size > 2 * 185_000_000
    weights.unlink()  # the temporary folder outlives the test
