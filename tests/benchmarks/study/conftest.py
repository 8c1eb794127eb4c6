"""What the smallest study's tests share."""

from pathlib import Path

import pytest

from benchmarks.study.__main__ import CONFIG
from benchmarks.study.runs import StudyFolder
from benchmarks.study.settings import read_study
from benchmarks.study.synthetic_videos import SyntheticVideos

SMALLEST = Path(CONFIG).with_name("smallest.yaml")
SEED = 0


@pytest.fixture(scope="package")
def study_folder(tmp_path_factory) -> StudyFolder:
    """A folder without runs; its mini-CLIPs are trained once."""
    return StudyFolder(read_study(SMALLEST), tmp_path_factory.mktemp("study_folder"))


@pytest.fixture(scope="package")
def synthetic(study_folder) -> SyntheticVideos:
    return study_folder.videos(SEED)
