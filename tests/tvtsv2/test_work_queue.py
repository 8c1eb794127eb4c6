"""The queue that processes sharing a store take videos from."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tvtsv2.reading.video_list import VideoEntry
from tvtsv2.store.work_queue import WorkQueue


def test_a_queue_gives_each_name_to_one_process_and_those_of_dead_ones_to_others(tmp_path):
    entries = [VideoEntry(f"{index}.mp4", Path(f"{index}.mp4")) for index in range(40)]
    first, second = WorkQueue(tmp_path), WorkQueue(tmp_path)
    one, two = first.take(entries, set), second.take(entries, lambda: {"0.mp4", "1.mp4"})
    mine = [next(one).name for _ in range(10)]
    theirs = [next(two).name for _ in range(20)]
    assert not set(mine) & set(theirs)
    first._own.close()  # as when its process dies, with two videos in the store
    rest = [entry.name for entry in two]
    assert sorted([*theirs, *rest, "0.mp4", "1.mp4"]) == sorted(entry.name for entry in entries)
    second.__exit__(None, None, None)
    with WorkQueue(tmp_path) as third:
        assert len(list(third.take(entries, set))) == 40  # claims of ended processes have gone


def test_a_process_that_lives_keeps_its_claims(tmp_path):
    entries = [VideoEntry(f"{index}.mp4", Path(f"{index}.mp4")) for index in range(12)]
    with WorkQueue(tmp_path) as first, WorkQueue(tmp_path) as second:
        next(first.take(entries, set))
        assert [entry.name for entry in second.take(entries, set)] == [f"{index}.mp4" for index in range(8, 12)]


def test_a_file_system_s_rules_for_locks(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="Windows has no flock")
    lock = fcntl.flock

    def lock_as_on_nfs(file, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", lock_as_on_nfs)
    with WorkQueue(tmp_path) as first, WorkQueue(tmp_path) as second, second.locked():
        assert second.others() == {first.name}

    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="no locks"):
        WorkQueue(tmp_path)


ONE_HOST = """
import os, socket, sys, time
from pathlib import Path
from types import SimpleNamespace
from work_queue import WorkQueue
folder, host = Path(sys.argv[1]), sys.argv[2]
socket.sethostname(host)
done = folder / "done"
entries = [SimpleNamespace(name=str(index)) for index in range(60)]
with WorkQueue(folder) as queue:
    for entry in queue.take(entries, lambda: {line.split()[0] for line in done.read_text().splitlines()}):
        time.sleep(0.01)
        with queue.locked(), open(done, "a") as file:
            print(entry.name, os.getpid(), socket.gethostname(), file=file)
"""


def test_a_host_takes_over_what_a_killed_process_of_another_had_taken_though_their_pids_are_the_same(tmp_path):
    unshare = ["unshare", "--user", "--map-root-user", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system does not allow namespaces of processes and host names")
    done = tmp_path / "done"
    done.touch()
    processes = {}
    for host in ("first", "second"):
        command = [*unshare, sys.executable, "-c", ONE_HOST, str(tmp_path), host]
        processes[host] = subprocess.Popen(command, cwd=ROOT / "tvtsv2" / "store")
    try:
        deadline = time.monotonic() + 60
        while not {"first", "second"} <= set(done.read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        processes["first"].kill()
        assert processes["second"].wait(60) == 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    names, pids, hosts = zip(*map(str.split, done.read_text().splitlines()), strict=True)
    assert sorted(names, key=int) == list(map(str, range(60)))
    assert set(pids) == {"1"} and set(hosts) == {"first", "second"}
