"""`tvtsv2 embed` into a store that is there: after a kill, with other processes, after changes of the videos."""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.docs_commands import run_reading_here
from tests.support.processes import exit_codes, start_processes
from tests.support.stores import embed, read_failures, read_rows, read_store
from tests.support.video_files import write_video
from tests.tvtsv2.conftest import NUM_VIDEOS
from tvtsv2.main import main
from tvtsv2.models.video_embedding import VideoEmbedder
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store import embedding_store
from tvtsv2.store.embedding_store import EmbeddingStore, StoreWriter
from tvtsv2.store.work_queue import WorkQueue


def embed_until_killed(arguments: list[str], readers: Path) -> None:
    """In a process of its own: embed until the fourth video is to be written; list its readers, and be killed."""
    add, calls = StoreWriter.add_video, []

    def add_or_die(self, *values):
        calls.append(values)
        if len(calls) == 4:
            readers.write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
            os.kill(os.getpid(), signal.SIGKILL)
        return add(self, *values)

    embedding_store.MAX_UNWRITTEN_ROWS = 2
    StoreWriter.add_video = add_or_die
    main(["embed", *arguments, "--batch_size", "1"])


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
    killed = start_processes(1, embed_until_killed, arguments, tmp_path / "readers", log=tmp_path / "killed.log")
    assert exit_codes(killed, timeout_seconds=300) == [-signal.SIGKILL], (tmp_path / "killed.log").read_text()
    readers = [int(pid) for pid in (tmp_path / "readers").read_text().split()]
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
    processes = start_processes(2, run_reading_here, str(tmp_path), "tvtsv2.main", ["embed", *arguments], log=log)
    assert set(exit_codes(processes, timeout_seconds=300)) <= {0, 3}, log.read_text()
    assert "could not be read" in log.read_text()
    after = read_store(store)
    assert len(after) == NUM_VIDEOS
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert list(EmbeddingStore(store).failures()) == ["broken.mp4"]


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
