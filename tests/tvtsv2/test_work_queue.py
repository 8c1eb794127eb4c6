"""The queue that processes sharing a store take videos from."""

from pathlib import Path

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
