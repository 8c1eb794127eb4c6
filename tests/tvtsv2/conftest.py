"""A small model and videos to embed."""

from types import SimpleNamespace

import pytest

from tests.support import strangers
from tests.support.small_folder import write_small_folder
from tests.support.video_files import write_video

NUM_VIDEOS = 6


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return write_small_folder(tmp_path_factory.mktemp("embed") / "model")


@pytest.fixture
def in_a_fork(monkeypatch):
    """A folder's own code runs in a process without this project that need not import everything anew."""
    monkeypatch.setattr("tvtsv2.models.folder_checks.subprocess", SimpleNamespace(run=strangers.run))


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
