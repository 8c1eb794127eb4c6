"""`tvtsv2 verify`: a good folder passes; each kind of damage fails the check that is there for it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_folder import write_small_folder
from tvtsv2.main import main


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("verify") / "model")


@pytest.fixture
def folder(good_folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(good_folder, tmp_path / "model")


def verify(folder, capsys, *arguments) -> tuple[int, dict[str, dict]]:
    capsys.readouterr()
    code = main(["verify", str(folder), "--json", *arguments])
    return code, {check["name"]: check for check in json.loads(capsys.readouterr().out)}


def change_weights(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(file, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def failed(checks: dict) -> set[str]:
    return {name for name, check in checks.items() if not check["ok"]}


def test_a_good_folder_passes(good_folder, capsys):
    code, checks = verify(good_folder, capsys, "--dtypes", "float32", "bfloat16", "float16")
    assert code == 0 and not failed(checks)
    variants = {f"{name} {dtype}" for name in ("eager", "sdpa") for dtype in ("float32", "bfloat16", "float16")}
    assert variants <= checks.keys()


def test_reference_embeddings_tell_other_weights(folder, capsys):
    code, checks = verify(folder, capsys, "--write_reference")
    assert code == 0 and checks["reference embeddings"]["ok"]
    change_weights(folder, lambda weights: weights["vision_model.pre_layrnorm.weight"].mul_(1.01))
    code, checks = verify(folder, capsys)
    assert code == 1 and failed(checks) == {"reference embeddings"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("visual_projection.weight"), "missing: visual_projection.weight"),
        (lambda weights: weights.update(stranger=torch.zeros(2)), "unexpected: stranger"),
        (lambda weights: weights.update({"visual_projection.weight": torch.zeros(3, 4)}), "visual_projection"),
    ],
)
def test_weights_that_do_not_fit_are_errors(folder, capsys, change, message):
    change_weights(folder, change)
    assert main(["verify", str(folder)]) == 1
    assert message in capsys.readouterr().err


def test_damage_fails_its_check(folder, capsys):
    def damage(weights):
        weights["text_model.final_layer_norm.bias"][0] = float("nan")
        for name, tensor in weights.items():
            if ".temporal_attn." in name:
                tensor.zero_()

    change_weights(folder, damage)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    change_json(folder / "processor_config.json", lambda values: values["video_processor"].update(image_mean=[0.5] * 3))
    change_json(folder / "tokenizer_config.json", lambda values: values.update(model_max_length=50))
    code, checks = verify(folder, capsys, "--dtypes", "float32")
    assert code == 1
    expected = {"pickled files", "finite weights", "time attention", "pixel statistics", "text positions"}
    assert expected <= failed(checks)


def test_another_model_and_no_model_are_errors(folder, tmp_path, capsys):
    change_json(folder / "config.json", lambda values: values.update(model_type="clip"))
    assert main(["verify", str(folder)]) == 1
    assert "'clip'" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err
