"""`tvtsv2 embed`: what the store holds, broken files, resuming after a kill with other processes, refusals."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lancedb
import numpy as np
import pytest
import torch

from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2VideoProcessor, read_video
from tests.support.docs_commands import run_and_exit
from tests.support.processes import exit_codes, start_processes
from tests.support.small_folder import small_processor, write_small_folder
from tests.support.video_files import write_video
from tvtsv2.main import main
from tvtsv2.models.model_loading import load_processor
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.segment_reading import Windows
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.embedding_store import EmbeddingStore
from tvtsv2.store.work_queue import WorkQueue

NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("embed") / "model")


@pytest.fixture(scope="module")
def videos(model_folder):
    """Six videos of different length and size in nested folders, among them one broken and one that is none."""
    folder = model_folder.parent / "videos"
    (folder / "deeper" / "still").mkdir(parents=True)
    for index in range(NUM_VIDEOS):
        place = folder / ("deeper/still" if index % 2 else "")
        write_video(place / f"video {index}.mp4", num_frames=8 + 9 * index, height=32 + 16 * (index % 2), width=48)
    (folder / "broken.mp4").write_bytes(b"\0" * 500)
    (folder / "notes.txt").write_text("not a video")
    return folder


def embed(*arguments) -> int:
    return main(["embed", *map(str, arguments)])


def read_rows(folder: Path) -> list[dict]:
    """The rows of a store, read with nothing of this project."""
    return lancedb.connect(folder).open_table("segments").to_arrow().to_pylist()


def read_store(folder: Path) -> dict[tuple[str, float], np.ndarray]:
    """Embeddings by path and start."""
    embeddings = {}
    for row in read_rows(folder):
        key = (row["path"], row["start_seconds"])
        assert key not in embeddings, "embedded twice"
        embeddings[key] = np.array(row["embedding"], np.float32)
    return embeddings


def read_failures(folder: Path) -> dict[str, str]:
    lines = (folder / "failures.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["path"]: entry["reason"] for entry in map(json.loads, lines)}


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


KILLED = """
import multiprocessing, os, signal, sys
import tvtsv2.store.embedding_store as module
from tvtsv2.main import main
module.MAX_UNWRITTEN_ROWS = 2
add, calls = module.StoreWriter.add_video, []
def add_or_die(self, *arguments):
    calls.append(arguments)
    if len(calls) == 4:
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, *arguments)
module.StoreWriter.add_video = add_or_die
main(["embed", *sys.argv[1:], "--batch_size", "1"])
"""


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its entry in the table."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_killed_and_taken_up_by_two_processes(model_folder, videos, tmp_path):
    """No video is lost, and none embedded twice."""
    store = tmp_path / "store"
    arguments = [str(model_folder), str(videos), str(store)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    readers = [int(pid) for pid in killed.stdout.split()]
    assert readers
    if sys.platform == "linux":
        deadline = time.monotonic() + 10
        while any(map(is_running, readers)):
            assert time.monotonic() < deadline, "reading processes outlive the one that they read for"
            time.sleep(0.01)
    (store / "failures.jsonl").write_text('{"path": "video 0.mp4", "rea')  # cut off
    before = read_store(store)
    assert 2 <= len(before) < NUM_VIDEOS

    log = tmp_path / "embed.log"
    processes = start_processes(2, run_and_exit, str(tmp_path), "tvtsv2.main", ["embed", *arguments], log=log)
    assert set(exit_codes(processes, timeout_seconds=300)) <= {0, 3}, log.read_text()
    assert "could not be read" in log.read_text()
    after = read_store(store)
    assert len(after) == NUM_VIDEOS
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert list(EmbeddingStore(store).failures()) == ["broken.mp4"]


class CrashingVideoProcessor(TVTSv2VideoProcessor):
    """Reads as its class does, but files of certain names make its process end as a faulty decoder would."""

    def read_frames(self, video, windows=None):
        if "video 2" in str(video):
            os.kill(os.getpid(), signal.SIGSEGV)
        if "video 3" in str(video):
            raise KeyError("what nobody expected")
        return super().read_frames(video, windows)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
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


def test_going_on_skips_what_is_in_and_what_failed(model_folder, videos, tmp_path, capsys):
    store = tmp_path / "store"
    names = [path.relative_to(videos).as_posix() for path in sorted(videos.rglob("*.mp4"))]
    few = videos / "few.txt"
    few.write_text("\n".join([*names[:3], "missing.mp4"]) + "\n")
    try:
        assert embed(model_folder, few, store) == 3
        assert len(read_store(store)) == 2  # broken.mp4 is the first name
    finally:
        few.unlink()
    # The list's last line was cut off: that video is tried again, the other is not.
    failures = store / "failures.jsonl"
    lines = failures.read_text().splitlines()
    assert {json.loads(line)["path"] for line in lines} == {"broken.mp4", "missing.mp4"}
    capsys.readouterr()
    os.utime(videos / "broken.mp4", (1, 1))  # tried again, since another file may have the same size
    assert embed(model_folder, videos, store) == 3
    assert len(failures.read_text().splitlines()) == 2
    assert EmbeddingStore(store).failures()["broken.mp4"]["modified_ns"] == 10**9
    assert len(read_store(store)) == NUM_VIDEOS
    failures.write_text(lines[0][:-5])
    assert embed(model_folder, videos, store) == 3
    assert EmbeddingStore(store).failures().keys() == {"broken.mp4"}
    assert "0 videos embedded, 6 were there before" in capsys.readouterr().out


def test_a_store_made_in_another_way_is_refused(model_folder, videos, tmp_path, capsys):
    store = tmp_path / "store"
    embed(model_folder, videos, store)
    before = read_store(store)
    assert embed(model_folder, videos, store, "--normalize") == 1
    error = capsys.readouterr().err
    assert "normalization" in error and "another way" in error
    assert read_store(store).keys() == before.keys()


def test_a_changed_file_is_embedded_again_and_a_removed_one_leaves_with_sync(model_folder, tmp_path, capsys):
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    for name in ("a.mp4", "b's.mp4", "c.mp4"):
        write_video(folder / name, num_frames=30)
    assert embed(model_folder, folder, store, "--windows", 0.5) == 0
    write_video(folder / "a.mp4", num_frames=50)
    (folder / "c.mp4").write_bytes(b"broken now")
    capsys.readouterr()
    assert embed(model_folder, folder, store, "--windows", 0.5) == 3
    assert "1 videos embedded (2 files had changed), 1 were there before" in capsys.readouterr().out
    seconds = {path: row["video_seconds"] for row in read_rows(store) for path in [row["path"]]}
    assert seconds == {"a.mp4": pytest.approx(50 / 24), "b's.mp4": pytest.approx(30 / 24)}
    assert len(read_store(store)) == 5 + 3
    # A video that could be read again, and one that is gone.
    write_video(folder / "c.mp4", num_frames=12)
    (folder / "b's.mp4").unlink()
    assert embed(model_folder, folder, store, "--windows", 0.5, "--sync") == 0
    assert {row["path"] for row in read_rows(store)} == {"a.mp4", "c.mp4"} and read_failures(store) == {}


def test_a_changed_video_that_a_killed_process_had_taken_is_not_done_with_its_old_rows(
    model_folder, tmp_path, monkeypatch
):
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    write_video(folder / "a.mp4", num_frames=5)
    assert embed(model_folder, folder, store) == 0
    write_video(folder / "a.mp4", num_frames=7)
    other = WorkQueue(store)
    assert len(list(other.take([VideoEntry("a.mp4", folder / "a.mp4")], set))) == 1
    embed_all = VideoEmbedder.embed

    def embed_after_the_kill(self, entries):
        other._own.close()
        return embed_all(self, entries)

    monkeypatch.setattr(VideoEmbedder, "embed", embed_after_the_kill)
    assert embed(model_folder, folder, store) == 0
    assert [row["video_seconds"] for row in read_rows(store)] == [pytest.approx(7 / 24)]


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


def test_videos_that_have_moved_are_not_embedded_again(model_folder, tmp_path, capsys):
    folder, store = tmp_path / "videos", tmp_path / "store"
    folder.mkdir()
    write_video(folder / "a.mp4", num_frames=5)
    assert embed(model_folder, folder, store) == 0
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "a.mp4", num_frames=7)
    assert embed(model_folder, tmp_path / "other", store) == 1  # two folders: names would be mixed up
    assert "videos:" in capsys.readouterr().err
    folder.rename(tmp_path / "moved")
    assert embed(model_folder, tmp_path / "moved", store) == 0
    assert "0 videos embedded, 1 were there before" in capsys.readouterr().out
    assert EmbeddingStore(store).provenance["videos"] == str(tmp_path / "moved")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
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
