"""`tvtsv2 export`: both formats on shapes other than the traced one, the check itself, and refusals."""

import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Model
from tests.support.small_folder import small_processor, write_small_folder
from tvtsv2.main import main
from tvtsv2.models.exported_towers import TextTower, VideoTower, check_tower


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    write_small_folder(place / "model")
    return place


@pytest.fixture(scope="module")
def model(place):
    return TVTSv2Model.from_pretrained(place / "model").eval()


@torch.no_grad()
def expected(model) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """Embeddings of 3 videos of 2 frames and of 3 texts, and what they are of."""
    inputs = {
        "pixel_values_videos": torch.randn(3, 2, 3, 24, 24),
        "input_ids": small_processor()(text=["red", "blue star", "a person moves"], return_tensors="pt")["input_ids"],
    }
    videos = model.get_video_features(inputs["pixel_values_videos"]).pooler_output
    return videos, model.get_text_features(inputs["input_ids"]).pooler_output, inputs


def test_onnx_needs_no_torch_to_run(place, model):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert main(["export", str(place / "model"), str(place / "onnx")]) == 0
    videos, texts, inputs = expected(model)
    for name, input_name, wanted in (("video", "pixel_values_videos", videos), ("text", "input_ids", texts)):
        session = onnxruntime.InferenceSession(str(place / "onnx" / f"{name}.onnx"))
        (actual,) = session.run([f"{name}_embeds"], {input_name: inputs[input_name].numpy()})
        assert np.allclose(actual, wanted.numpy(), atol=1e-4)
    assert (place / "onnx" / "tokenizer.json").is_file()


def test_programs_of_torch_export(place, model, capsys):
    assert main(["export", str(place / "model"), str(place / "programs"), "--format", "torch_export"]) == 0
    videos, texts, inputs = expected(model)
    for name, input_name, wanted in (("video", "pixel_values_videos", videos), ("text", "input_ids", texts)):
        program = torch.export.load(place / "programs" / f"{name}.pt2").module()
        with torch.no_grad():
            torch.testing.assert_close(program(inputs[input_name]), wanted, atol=1e-5, rtol=1e-5)
    # A check that compares with other weights has to fail.
    other = TVTSv2Model.from_pretrained(place / "model").eval()
    with torch.no_grad():
        other.visual_projection.weight.mul_(1.1)
        other.text_projection.weight.mul_(1.1)
    for tower, name in ((VideoTower(other), "video"), (TextTower(other), "text")):
        with pytest.raises(ValueError, match="differs from PyTorch"):
            check_tower(tower, place / "programs" / f"{name}.pt2")


def test_refusals_leave_nothing_behind(place, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert main(["export", str(place / "model"), str(tmp_path / "full"), "--format", "torch_export"]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
