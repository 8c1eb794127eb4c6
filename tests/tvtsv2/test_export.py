"""`tvtsv2 export`: its formats on shapes other than the traced one, backends of `tvtsv2 embed`, checks and refusals."""

import ctypes
import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from modeling_tvtsv2 import TVTSv2Model
from modeling_tvtsv2.weight_hash import hash_weights
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main
from tvtsv2.models.backends import (
    check_backend,
    find_exported,
    onnxruntime_backend,
    openvino_backend,
    spread_tube_mask,
    torch_backend,
)
from tvtsv2.models.exported_towers import TextTower, VideoTower, check_tower
from tvtsv2.models.folder_checks import check_export
from tvtsv2.models.model_loading import load_for_checks
from tvtsv2.models.query import Query
from tvtsv2.store.embedding_store import EmbeddingStore


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("export")
    write_small_folder(place / "model")
    (place / "videos").mkdir()
    for index in range(5):
        write_video(place / "videos" / f"{index}.mp4", num_frames=8 + index)
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


@pytest.fixture(scope="module")
def onnx(place):
    """The folder of ONNX files, inside the model's; the video tower also in int8."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, folder = place / "model", place / "model" / "onnx"
    assert main(["export", str(model), str(folder), "--calibrate", str(place / "videos")]) == 0
    return folder


HOSTS = {"onnxruntime": onnxruntime_backend, "openvino": openvino_backend}


@pytest.mark.parametrize("host", HOSTS)
def test_onnx_files_on_their_hosts(onnx, model, host):
    """Batches, frames and tokens other than the traced ones."""
    pytest.importorskip(host)
    videos, texts, inputs = expected(model)
    for name, input_name, wanted in (("video", "pixel_values_videos", videos), ("text", "input_ids", texts)):
        actual = HOSTS[host](onnx / f"{name}.onnx")(inputs[input_name])
        torch.testing.assert_close(actual, wanted, atol=1e-4, rtol=1e-4)
        assert cosine_similarity(actual, wanted).min() >= 0.9999
    files = sorted(map(str, onnx.parents[1].joinpath("videos").iterdir()))
    pixels = small_processor()(videos=files, return_tensors="pt")["pixel_values_videos"]
    with torch.no_grad():
        videos = model.get_video_features(pixels).pooler_output
    actual = HOSTS[host](onnx / "video_int8.onnx")(pixels)
    assert 0.9 < cosine_similarity(actual, videos).min() < 0.9999  # tiny layers lose most
    assert (onnx / "tokenizer.json").is_file()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the layout of stack_t is that of Linux")
def test_openvino_leaves_the_signal_stack_of_this_thread(onnx):
    """With a stack that is gone, the next signal that Python handles ends the process."""
    pytest.importorskip("openvino")

    def signal_stack() -> bytes:
        stack = ctypes.create_string_buffer(24)  # stack_t: pointer, flags, size
        assert ctypes.CDLL(None).sigaltstack(None, stack) == 0
        return stack.raw

    before = signal_stack()
    backends = [openvino_backend(onnx / "text.onnx") for _ in range(2)]
    backends[0](torch.zeros(1, 4, dtype=torch.int64))
    assert signal_stack() == before
    backends.pop(0)  # the first one goes first
    backends.clear()
    assert signal_stack() == before


def embed(place, store: str, *options: str) -> tuple[int, np.ndarray, dict]:
    """The exit code of `tvtsv2 embed`, the embeddings, and the provenance."""
    code = main(["embed", str(place / "model"), str(place / "videos"), str(place / store), *options])
    held = EmbeddingStore(place / store)
    rows = sorted(held.table.to_arrow().to_pylist(), key=lambda row: row["path"])
    return code, np.array([row["embedding"] for row in rows]), held.provenance


def test_embed_on_another_backend(onnx, place, capsys):
    pytest.importorskip("openvino")
    _, plain, _ = embed(place, "plain")
    code, actual, provenance = embed(place, "store", "--backend", "onnxruntime")
    assert code == 0 and np.allclose(actual, plain, atol=1e-4)
    sha256 = hashlib.sha256((onnx / "video.onnx").read_bytes()).hexdigest()
    source = {"backend": "onnxruntime", "dtype": "float32", "file_sha256": sha256}
    assert provenance["video_tower"] == source
    assert embed(place, "store", "--backend", "openvino")[0] == 1
    assert "video_tower.backend: 'onnxruntime' there, 'openvino' now" in capsys.readouterr().err
    _, rounded, provenance = embed(place, "int8", "--backend", "openvino", "--dtype", "int8")
    assert provenance["video_tower"]["dtype"] == "int8" and not np.allclose(rounded, plain, atol=1e-4)
    assert cosine_similarity(*map(torch.from_numpy, (rounded, plain))).min() > 0.9


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--dtype", "int8"], 2, "--backend torch computes in float32, bfloat16, float16, not int8"),
        (["--backend", "openvino", "--dtype", "float16"], 2, "or --backend torch"),
        (["--backend", "onnxruntime", "--keep", "0.5"], 2, "--keep and --attn_implementation belong to"),
        (["--keep", "0"], 2, r"--keep must lie in (0, 1], got 0.0"),
        (["--keep", "0.1"], 1, "leave one of 9 patches, got 0.1"),
    ],
)
def test_settings_that_do_not_fit_a_backend(place, tmp_path, capsys, options, code, message):
    assert main(["embed", str(place / "model"), str(place / "videos"), str(tmp_path / "store"), *options]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_a_backend_without_its_package_or_its_file(onnx, place, tmp_path, capsys, monkeypatch):
    with pytest.raises(ValueError, match=r"no .*video\.onnx of tvtsv2 export; run: tvtsv2 export"):
        find_exported(tmp_path, "float32", "0")
    with pytest.raises(ValueError, match=r"video_int8\.onnx comes from other weights .*--calibrate VIDEOS"):
        find_exported(onnx.parent, "int8", "0")
    shutil.copytree(onnx.parent, tmp_path / "model")
    (tmp_path / "model" / "onnx" / "video.onnx").write_bytes(b"no model")
    checks = {check.name: check for check in check_export(tmp_path / "model", load_for_checks(tmp_path / "model"))}
    assert not checks["exported towers"].ok and checks["exported towers"].detail == "changed: video.onnx"
    with pytest.raises(ValueError, match=r"video\.onnx is not the file that tvtsv2 export wrote"):
        find_exported(tmp_path / "model", "float32", hash_weights(load_for_checks(tmp_path / "model")))
    record = json.loads((tmp_path / "model" / "onnx" / "export.json").read_text())
    record["files"]["video.onnx"] = hashlib.sha256(b"no model").hexdigest()
    (tmp_path / "model" / "onnx" / "export.json").write_text(json.dumps(record))
    for backend in HOSTS:
        pytest.importorskip(backend)
        embed = ["embed", str(tmp_path / "model"), str(place / "videos"), str(tmp_path / "store")]
        assert main([*embed, "--backend", backend]) == 1
        assert f"{backend} cannot load" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="needs openvino: pip install"):
        check_backend("openvino", "float32")


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
    calibrate = ["--format", "torch_export", "--calibrate", "videos"]
    assert main(["export", str(place / "model"), str(tmp_path / "out"), *calibrate]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_kept_patches_are_spread():
    half = spread_tube_mask(14, 0.5).view(14, 14)
    rows, columns = torch.meshgrid(torch.arange(14), torch.arange(14), indexing="ij")
    assert torch.equal(half, (rows + columns) % 2 == 1)  # a checkerboard
    kept = ~spread_tube_mask(16, 0.3).view(4, 4, 4, 4).transpose(1, 2).flatten(2)
    assert kept.sum() == int(256 * 0.3) and set(kept.sum(-1).flatten().tolist()) <= {4, 5}  # of each 4 x 4 patches
    assert not spread_tube_mask(3, 1.0).any()


@torch.no_grad()
def test_embed_keeps_a_share_of_the_patches(place, model, capsys):
    _, actual, provenance = embed(place, "kept", "--keep", "0.5")
    pixels = small_processor()(videos=str(place / "videos" / "0.mp4"), return_tensors="pt")["pixel_values_videos"]
    masked = torch.ones(1, 9, dtype=torch.bool)
    masked[0, [0, 2, 6, 8]] = False  # the corners: every other row and column
    wanted = model.get_video_features(pixels, bool_masked_pos=masked).pooler_output
    assert np.allclose(actual[0], wanted.numpy(), atol=1e-5)
    assert provenance["video_tower"] == {"keep": 0.5}
    assert embed(place, "kept")[0] == 1
    assert "video_tower: {'keep': 0.5} there, None now" in capsys.readouterr().err
    query = Query(provenance)
    torch.testing.assert_close(
        torch.from_numpy(query.embed_video(str(place / "videos" / "0.mp4"))), wanted[0], atol=1e-5, rtol=1e-5
    )
    assert torch.equal(torch_backend(model)(pixels), model.get_video_features(pixels, class_token_only=True)[1])
