"""`tvtsv2 verify`: a good folder passes; each kind of damage fails the check that is there for it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_folder import embed_in_this_process, write_small_folder
from tvtsv2.main import main
from tvtsv2.models.folder_checks import REFERENCE_FILE, hash_files
from tvtsv2.verify import write_reference


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("verify") / "model")


@pytest.fixture
def folder(good_folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(good_folder, tmp_path / "model")


@pytest.fixture(scope="module")
def good_folder_with_reference(good_folder):
    folder = shutil.copytree(good_folder, good_folder.with_name("with_reference"))
    write_reference(folder)
    return folder


@pytest.fixture
def folder_with_reference(good_folder_with_reference, tmp_path):
    """A copy to damage."""
    return shutil.copytree(good_folder_with_reference, tmp_path / "model")


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


def test_reference_embeddings_tell_other_weights(folder_with_reference, capsys):
    folder = folder_with_reference
    change_weights(folder, lambda weights: weights["vision_model.pre_layrnorm.weight"].mul_(1.01))
    code, checks = verify(folder, capsys)
    assert code == 1 and failed(checks) == {"checksums", "the folder's own code", "reference embeddings"}


def swap_ids(values: dict) -> None:
    vocabulary = values["model"]["vocab"]
    vocabulary["red"], vocabulary["star"] = vocabulary["star"], vocabulary["red"]


def set_video(**settings):
    return lambda folder: change_json(
        folder / "processor_config.json", lambda values: values["video_processor"].update(settings)
    )


def set_config(**settings):
    return lambda folder: change_json(folder / "config.json", lambda values: values.update(settings))


EDIT = """
_right = TVTSv2Model.get_text_features


def _wrong(self, *arguments, **options):
    output = _right(self, *arguments, **options)
    output.pooler_output = output.pooler_output + 1
    return output


TVTSv2Model.get_text_features = _wrong
"""


def edit_code(folder) -> None:
    file = folder / "modeling_tvtsv2.py"
    file.write_text(file.read_text() + EDIT)


def edit_tokenizer(folder) -> None:
    change_json(folder / "tokenizer.json", swap_ids)


def edit_weights(folder) -> None:
    change_weights(folder, lambda weights: weights["visual_projection.weight"].mul_(1.01))


def remove_code(folder) -> None:
    (folder / "reader_tvtsv2.py").unlink()


def edit_pipeline(folder) -> None:
    file = folder / "pipelines_tvtsv2.py"
    file.write_text(file.read_text().replace('DEFAULT_TEMPLATES = ("a person {}",)', "DEFAULT_TEMPLATES = broken"))


def round_weights(folder) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_texts_on_the_left(folder) -> None:
    change_json(folder / "tokenizer_config.json", lambda values: values.update(truncation_side="left"))


OWN_CODE = "the folder's own code"
# What is done to a folder, and the check that finds it without checksums.
DAMAGE = {
    "no normalization": (set_video(do_normalize=False), "pixel steps"),
    "no rescaling": (set_video(do_rescale=False), "pixel steps"),
    "another rescaling": (set_video(rescale_factor=0.01), "pixel steps"),
    "fewer frames": (set_video(num_frames=3), "number of frames"),
    "weights edited": (edit_weights, "reference embeddings"),
    "a code file is missing": (remove_code, OWN_CODE),
    "code edited": (edit_code, "own code and installed code"),
    "other frames": (set_video(preset="feature_extraction"), "reference of file and texts"),
    "two ids swapped": (edit_tokenizer, "reference of file and texts"),
    "texts cut on the left": (cut_texts_on_the_left, "reference of file and texts"),
    "another temperature": (set_config(contrastive_temperature=0.1), "reference of file and texts"),
    "weights rounded": (round_weights, "reference embeddings"),
    "rounded when loaded": (set_config(dtype="bfloat16"), "own code and installed code"),
    "pipelines edited": (edit_pipeline, OWN_CODE),
}
FOUND_IN_OWN_CODE = ("a code file is missing", "code edited", "rounded when loaded", "pipelines edited")


@pytest.fixture
def in_this_process(monkeypatch):
    """The folder is loaded by the installed code, where its own is no other: a process for each takes seconds."""
    monkeypatch.setattr("tvtsv2.models.folder_checks.embed_as_stranger", embed_in_this_process)


def verify_quickly(folder, capsys) -> set[str]:
    """The failed checks of one variant."""
    code, checks = verify(folder, capsys, "--dtypes", "float32", "--attn_implementations", "eager")
    assert code == (1 if failed(checks) else 0)
    return failed(checks)


@pytest.mark.parametrize("damage", DAMAGE)
def test_checksums_find_each_damage_and_keep_its_code_from_running(folder_with_reference, capsys, damage):
    folder = folder_with_reference
    DAMAGE[damage][0](folder)
    assert {"checksums", OWN_CODE} <= verify_quickly(folder, capsys)


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_is_found_by_what_is_computed(folder_with_reference, capsys, damage, request):
    """The checksums are those of the damaged folder."""
    folder = folder_with_reference
    change, check = DAMAGE[damage]
    change(folder)
    change_json(folder / REFERENCE_FILE, lambda values: values.update(checksums=hash_files(folder)))
    request.getfixturevalue("in_a_fork" if damage in FOUND_IN_OWN_CODE else "in_this_process")
    assert check in verify_quickly(folder, capsys)


def test_the_verdict_is_the_last_line(folder, capsys, in_this_process):
    arguments = ["verify", str(folder), "--dtypes", "float32", "--attn_implementations", "eager"]
    assert main(arguments) == 0
    assert "no reference embeddings" in capsys.readouterr().out.splitlines()[-1]
    (folder / "README.md").write_text("a card, which may be edited")
    assert main([*arguments, "--write_reference"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("verdict: ok, ")
    (folder / "README.md").write_text("an edited card")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "video.onnx").write_bytes(b"tvtsv2 export")
    (folder / "onnx" / "export.json").write_text("{}")
    (folder / "linked.py").symlink_to("nowhere")
    (folder / "unknown.py").write_text("")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "weights.PKL").write_bytes(b"pickle")
    assert main(arguments) == 1
    assert "not listed: deeper/weights.PKL, linked.py, unknown.py" in (output := capsys.readouterr().out)
    assert "found deeper/weights.PKL" in output and "export.json lists no files" in output


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
    output = capsys.readouterr().out
    assert message in output and output.splitlines()[-1].startswith("verdict: FAILED")


def test_damage_fails_its_check(folder, capsys, in_this_process):
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


@pytest.mark.parametrize("options", [("--attn_implementations", "fast"), ("--device", "bogus")])
def test_wrong_arguments(folder, capsys, options):
    assert main(["verify", str(folder), *options]) == 2
    assert options[1] in capsys.readouterr().err


def cut(name):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        cut("model.safetensors"),
        cut("config.json"),
        cut("tokenizer.json"),
        cut("processor_config.json"),
        set_config(vision_config=3),
        set_config(projection_dim="wide"),
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
)
def test_files_that_no_library_reads_fail_the_verdict(folder, capsys, damage):
    damage(folder)
    assert main(["verify", str(folder)]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[-1].startswith("verdict: FAILED") and not output.err


def test_a_list_of_checksums_that_is_none_is_an_error(folder, capsys):
    (folder / REFERENCE_FILE).write_text('{"checksums": ["abc"]}')
    assert main(["verify", str(folder)]) == 1
    assert "is no file of reference embeddings" in capsys.readouterr().err


def test_another_model_and_no_model_are_errors(folder, tmp_path, capsys):
    change_json(folder / "config.json", lambda values: values.update(model_type="clip"))
    assert main(["verify", str(folder)]) == 1
    assert "'clip'" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err
