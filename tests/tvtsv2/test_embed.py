"""`tvtsv2 embed`: what the store holds, broken files, a crash, refusals."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import lancedb
import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2VideoProcessor, read_video
from tests.support.small_folder import small_processor
from tests.support.stores import embed, read_failures, read_rows, read_store
from tests.support.video_files import write_video
from tests.tvtsv2.conftest import NUM_VIDEOS
from tvtsv2.models.model_loading import load_processor
from tvtsv2.reading.segment_reading import Windows


@torch.no_grad()
def embed_by_hand(model_folder: Path, video: Path) -> np.ndarray:
    model = TVTSv2Model.from_pretrained(model_folder)
    inputs = small_processor()(videos=str(video), return_tensors="pt")
    return model.get_video_features(**inputs).pooler_output[0].numpy()


def test_a_folder_with_a_broken_file(model_folder, videos, tmp_path, capsys):
    store = tmp_path / "store"
    assert embed(model_folder, videos, store, "--batch_size", 4) == 3
    assert "1 could not be read" in capsys.readouterr().err
    embeddings = read_store(store)
    assert len(embeddings) == NUM_VIDEOS
    for (path, _), embedding in embeddings.items():
        assert np.allclose(embedding, embed_by_hand(model_folder, videos / path), atol=1e-5), path
    assert list(read_failures(store)) == ["broken.mp4"] and "broken.mp4" in read_failures(store)["broken.mp4"]
    assert sorted(path.name for path in (store / ".queue").iterdir()) == ["claims.jsonl", "lock"]


def test_each_file_says_where_it_comes_from(model_folder, videos, tmp_path):
    store = tmp_path / "store"
    embed(model_folder, videos, store, "--normalize", "--preset", "feature_extraction")
    provenance = json.loads((store / "embeddings.json").read_text())
    table = lancedb.connect(store).open_table("segments")
    assert json.loads(table.schema.metadata[b"provenance"]) == provenance
    assert all(np.isclose(np.linalg.norm(embedding), 1, atol=1e-5) for embedding in read_store(store).values())
    assert provenance["transform"]["preset"] == "feature_extraction"
    assert provenance["transform"]["image_mean"] == [0.485, 0.456, 0.406]
    assert provenance["embedding"]["normalization"] == "length 1"
    assert len(provenance["model"]["weights_sha256"]) == 64
    for row in read_rows(store):
        indices = row["frame_indices"]
        _, metadata = read_video(videos / row["path"], lambda metadata, indices=indices: indices)
        assert row["frame_seconds"] == pytest.approx(metadata.timestamps)
        assert row["video_seconds"] == pytest.approx(metadata.duration)


def test_windows_are_embedded_as_videos_of_their_own(model_folder, videos, tmp_path):
    store = tmp_path / "store"
    assert embed(model_folder, videos, store, "--windows", 0.5, "--stride", 0.25, "--batch_size", 5) == 3
    rows = read_rows(store)
    embeddings = read_store(store)
    for index in range(NUM_VIDEOS):
        mine = [row for row in rows if row["path"].endswith(f"video {index}.mp4")]
        seconds = (8 + 9 * index) / 24
        spans = [(row["start_seconds"], row["end_seconds"]) for row in mine]
        assert np.allclose(spans, Windows(0.5, 0.25).of(seconds))
        for row in mine[::3]:
            span = (row["start_seconds"], row["end_seconds"])
            video_processor = small_processor().video_processor
            ((frames, _),) = video_processor.read_frames(str(videos / row["path"]), [span])
            with torch.no_grad():
                output = TVTSv2Model.from_pretrained(model_folder).get_video_features(
                    video_processor.normalize_frames(frames)[None]
                )
            key = (row["path"], row["start_seconds"])
            assert np.allclose(embeddings[key], output.pooler_output[0].numpy(), atol=1e-5)
            assert all(span[0] - 0.05 <= time < span[1] for time in row["frame_seconds"])


class CrashingVideoProcessor(TVTSv2VideoProcessor):
    """Reads as its class does, but files of certain names make its process end as a faulty decoder would."""

    def read_frames(self, video, windows=None):
        if "video 2" in str(video):
            os.kill(os.getpid(), signal.SIGSEGV)
        if "video 3" in str(video):
            raise KeyError("what nobody expected")
        return super().read_frames(video, windows)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSEGV, by which the decoder ends here")
def test_a_crash_of_the_decoder_costs_one_file(model_folder, videos, tmp_path, capsys, monkeypatch):
    def crashing(name, **kwargs):
        processor = load_processor(name, **kwargs)
        processor.video_processor.__class__ = CrashingVideoProcessor
        return processor

    store = tmp_path / "store"
    monkeypatch.setattr("tvtsv2.models.model_loading.load_processor", crashing)
    assert embed(model_folder, videos, store, "--num_readers", 2) == 3
    assert "3 could not be read" in capsys.readouterr().err
    reasons = {Path(path).stem: reason for path, reason in read_failures(store).items()}
    assert reasons.keys() == {"broken", "video 2", "video 3"}
    assert "SIGSEGV" in reasons["video 2"] and "KeyError: 'what nobody expected'" in reasons["video 3"]
    assert len(read_store(store)) == NUM_VIDEOS - 2

    monkeypatch.undo()
    assert embed(model_folder, videos, store, "--retry_failed") == 3
    output = capsys.readouterr()
    assert "2 videos embedded" in output.out and "limited by " in output.out
    assert "1 could not be read" in output.err and len(read_store(store)) == NUM_VIDEOS


def test_a_disk_that_is_full_ends_the_command_in_one_sentence(model_folder, tmp_path, capsys, monkeypatch):
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    write_video(folder / "a.mp4", num_frames=5)

    def fail(self, *arguments, **options):
        raise RuntimeError("lance error: LanceError(IO): No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lancedb.table.LanceTable.add", fail)
        assert embed(model_folder, folder, store) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: The store") and "No space left" in error and "same command" in error
    assert embed(model_folder, folder, store) == 0 and len(read_store(store)) == 1


def test_a_folder_that_cannot_be_written_is_named(model_folder, videos, tmp_path, capsys, monkeypatch):
    def refuse(self, *arguments, **options):  # as the system does, except to root
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert embed(model_folder, videos, tmp_path / "store") == 1
    error = capsys.readouterr().err
    assert str(tmp_path / "store") in error and "check the permissions" in error


def test_ctrl_c_says_that_the_same_command_continues(model_folder, videos, tmp_path, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tvtsv2.reading.video_list.list_videos", interrupt)
    assert embed(model_folder, videos, tmp_path / "store") == 130
    assert "the same command continues" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names of Windows and macOS are always Unicode")
def test_names_that_are_not_utf8_links_and_single_files(model_folder, tmp_path, capsys):
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    write_video(folder / "good.mp4", num_frames=5)
    (folder / os.fsdecode(b"caf\xe9.mp4")).write_bytes((folder / "good.mp4").read_bytes())
    (folder / "nowhere.mp4").symlink_to(tmp_path / "gone.mp4")
    (folder / "._good.mp4").write_bytes(b"AppleDouble")
    for _ in range(2):
        assert embed(model_folder, folder, store) == 3
        error = capsys.readouterr().err
        assert "1 could not be read" in error
        assert "1 dangling link (nowhere.mp4); 1 hidden (._good.mp4)" in error
    assert [path for path, _ in read_store(store)] == ["good.mp4"]
    assert "UTF-8" in read_failures(store)[os.fsdecode(b"caf\xe9.mp4")]
    assert embed(model_folder, folder / "good.mp4", tmp_path / "single") == 0
    assert [path for path, _ in read_store(tmp_path / "single")] == ["good.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stride", 1], "--windows"),
        (["--windows", 1e-9], "--windows must be at least 0.01 seconds"),
        (["--windows", 1, "--stride", 0], "--stride must be at least 0.01 seconds"),
        (["--column", "file"], "--column belongs to a .csv or .tsv file"),
        (["--revision", "main"], "--revision belongs to a model on the hub"),
        (["--backend", "onnxruntime", "--dtype", "bfloat16"], "computes in float32, int8, not bfloat16"),
        (["--batch_size", 0], "at least 1"),
        (["--root", "."], "list file"),
    ],
)
def test_wrong_arguments_leave_nothing_behind(model_folder, videos, tmp_path, capsys, arguments, message):
    assert embed(model_folder, videos, tmp_path / "store", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_wrong_sources_models_and_targets(model_folder, videos, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    table = tmp_path / "table.csv"
    table.write_text("file\na.mp4\n")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((model_folder, tmp_path / "nowhere", tmp_path / "store"), "no folder, list file or video"),
        ((model_folder, tmp_path / "empty", tmp_path / "store"), "holds no videos"),
        ((model_folder, table, tmp_path / "store"), "--column"),
        ((model_folder, videos, full), "not empty"),
        ((tmp_path / "empty", videos, tmp_path / "store"), "config.json"),
    ):
        assert embed(*arguments) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: weights.pop("visual_projection.weight"), "missing: visual_projection.weight"),
        (lambda weights: weights["visual_projection.weight"].fill_(float("nan")), "not finite"),
    ],
)
def test_a_model_with_a_missing_weight_or_one_of_nan_is_refused(
    model_folder, videos, tmp_path, capsys, damage, message
):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    folder.mkdir()
    for path in model_folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert embed(folder, videos, tmp_path / "store") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
