"""Whole files and folders: what is there after success, after an error, and meanwhile."""

import os

import pytest

from processing.atomic_files import whole_file, whole_folder, write_whole


def test_a_file_is_replaced_at_the_end_only(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "grün")
    assert path.read_bytes() == "grün".encode()
    with whole_file(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_text(encoding="utf-8") == "grün"
        assert temporary.suffix == ".txt" and temporary.name.startswith(".")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, b"old")
    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.txt"]


def test_permissions_follow_the_umask(tmp_path):
    held = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
        with whole_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(held)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "b")] == [0o640, 0o750]


def test_a_folder_appears_whole(tmp_path):
    with whole_folder(tmp_path / "deep" / "folder") as temporary:
        (temporary / "file").touch()
        assert not (tmp_path / "deep" / "folder").exists()
    assert os.listdir(tmp_path / "deep" / "folder") == ["file"]
    with pytest.raises(KeyError), whole_folder(tmp_path / "other") as temporary:
        raise KeyError
    assert os.listdir(tmp_path) == ["deep"]
    with pytest.raises(ValueError, match="not an empty folder"), whole_folder(tmp_path / "deep"):
        pass
