"""Which file an annotated video is."""

import unicodedata

import pytest

from benchmarks.evaluation.embeddings.video_folder import VideoFolder


@pytest.fixture
def root(tmp_path):
    for name in (
        "video7.mp4",
        "lsmdc/1004_Juno_00.00.32.167-00.00.35.600.avi",
        "wave/hand.avi",
        "jump/hand.avi",
        "clip_x_000012_000022.mp4",
        "cafe/ab-_000012_000022.mp4",
        "uncut_id.mp4",
        unicodedata.normalize("NFD", "Café.mp4"),
        ".hidden.mp4",
        "notes.txt",
        "twice.mp4",
        "twice.avi",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("video7", "video7.mp4"),
        ("video7.webm", "video7.mp4"),
        ("1004_Juno_00.00.32.167-00.00.35.600", "lsmdc/1004_Juno_00.00.32.167-00.00.35.600.avi"),
        ("wave/hand", "wave/hand.avi"),
        ("ab-_000012_000022", "cafe/ab-_000012_000022.mp4"),
        ("uncut_id_000030_000040", "uncut_id.mp4"),
        ("Café", unicodedata.normalize("NFD", "Café.mp4")),
        ("twice.avi", "twice.avi"),
        ("absent", None),
        (".hidden", None),
        ("../" + "secret.mp4", None),
    ],
)
def test_find(root, name, file):
    assert VideoFolder(root).find(name) == (None if file is None else root / file)


@pytest.mark.parametrize("name", ["hand", "twice", "twice.webm"])
def test_several_files_of_one_name_are_refused(root, name):
    with pytest.raises(ValueError, match="could be any of"):
        VideoFolder(root).find(name)


def test_find_all_tells_found_from_missing(root):
    found, missing = VideoFolder(root).find_all(("video7", "absent"))
    assert (found, missing) == ({"video7": root / "video7.mp4"}, ["absent"])


def test_empty_and_absent_folders(tmp_path):
    with pytest.raises(ValueError, match="no video file"):
        VideoFolder(tmp_path)
    with pytest.raises(FileNotFoundError):
        VideoFolder(tmp_path / "absent")
