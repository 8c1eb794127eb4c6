"""The walk over folders: what is found, what is left out and named; names that are not UTF-8."""

import hashlib
import os
import sys

import pytest

from processing.video_files import content_hash, find_videos, printable_name

NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_walk_names_what_it_leaves_out(tmp_path):
    folder, elsewhere = tmp_path / "videos", tmp_path / "elsewhere"
    (folder / "b" / "deep").mkdir(parents=True)
    (folder / ".Trash").mkdir()
    elsewhere.mkdir()
    for name in ("z.MP4", "b/a.webm", "b/deep/c.wmv", "._z.mp4", ".DS_Store", ".Trash/t.mp4", "notes.txt", NOT_UTF8):
        (folder / name).write_bytes(b"")
    (elsewhere / "linked.mp4").write_bytes(b"")
    (folder / "to_file.mp4").symlink_to(elsewhere / "linked.mp4")
    (folder / "nowhere.mp4").symlink_to(elsewhere / "gone.mp4")
    (folder / "to_folder").symlink_to(elsewhere)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.mp4")
    found = find_videos(folder)
    assert found.names == ["b/a.webm", "b/deep/c.wmv", NOT_UTF8, "to_file.mp4", "z.MP4"]
    assert {reason: sorted(names) for reason, names in found.left_out.items()} == {
        "hidden": [".Trash", "._z.mp4"],
        "dangling link": ["nowhere.mp4"],
        "link to a folder": ["loop", "to_folder"],
        "not a regular file": ["pipe.mp4"],
    }
    assert "2 link to a folder (loop, to_folder)" in found.describe_left_out()
    assert find_videos(elsewhere).describe_left_out() == ""


def test_a_name_that_is_not_utf8_can_be_printed():
    assert printable_name(NOT_UTF8) == r"caf\xe9.mp4" and printable_name("café.mp4") == "café.mp4"


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(OSError):
        find_videos(tmp_path / "none")


def test_the_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert content_hash(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_link_in_circles_is_a_dangling_link(tmp_path):
    (tmp_path / "circle.mp4").symlink_to(tmp_path / "circle.mp4")
    assert find_videos(tmp_path).left_out == {"dangling link": ["circle.mp4"]}
