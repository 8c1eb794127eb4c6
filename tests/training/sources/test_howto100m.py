"""HowTo100M's list and caption file, made small in their published form."""

import json
import shutil

import pytest

from processing import TVTSv2VideoProcessor
from training.narrated_shapes.corpus import CorpusConfig, build_corpus
from training.sources import howto100m
from training.sources.clip_dataset import ClipDataset
from training.sources.clip_sampling import TranscriptError
from training.sources.howto100m import HowTo100M, find_entries


@pytest.fixture
def data(tmp_path):
    config = CorpusConfig(num_train_videos=1, num_heldout_videos=0, num_train_captions=0, num_heldout_captions=0)
    corpus = build_corpus(tmp_path / "corpus", config, num_workers=1)
    shutil.copyfile(corpus.folder / "videos/train/data/train000000.mp4", tmp_path / "Ab-_1.mp4")
    starts = [float(second) for second in range(0, 26, 2)]
    speech = {
        "start": starts,
        "end": [start + 3 for start in starts],
        "text": ['so "quoted": {and} more words'] * len(starts),
    }
    captions = {
        "zz": {"start": [], "end": [], "text": []},
        "Ab-_1": speech,
        "broken": {"start": [1.0], "end": [], "text": []},
    }
    (tmp_path / "caption.json").write_text(json.dumps(captions))
    (tmp_path / "list.csv").write_text("video_id,category_1\nAb-_1,Food\nbroken,Food\nunknown,Food\nzz,Food\n")
    return tmp_path


def open_clips(data, **options):
    videos = HowTo100M(data / "list.csv", data / "caption.json", data)
    return ClipDataset(videos, TVTSv2VideoProcessor(crop_size=32), **options)


def test_items(data):
    clips = open_clips(data)
    item = clips[0]
    assert item["frames"].shape == (12, 32, 32, 3) and item["video_id"] == "Ab-_1"
    assert len(item["transcripts"]) == 4 and '"quoted": {and}' in " ".join(item["transcripts"])
    assert clips[0]["transcripts"] == item["transcripts"]
    assert open_clips(data, deterministic=True)[0]["transcripts"]


def test_each_entry_is_found_alone(data):
    text = (data / "caption.json").read_bytes()
    places = find_entries(data / "caption.json")
    assert list(places) == ["zz", "Ab-_1", "broken"]
    start, end = places["Ab-_1"]
    assert json.JSONDecoder().raw_decode(text[start:end].decode())[0] == json.loads(text)["Ab-_1"]


@pytest.mark.parametrize(
    "index, message",
    [
        (1, "line 3: captions of 'broken' .* lists of one length"),
        (2, "line 4: .*no captions of video 'unknown'"),
        (3, "zz: "),
    ],
)
def test_broken_and_missing_captions_name_the_line(data, index, message):
    with pytest.raises(TranscriptError, match=message):
        open_clips(data)[index]


def test_huge_entries_are_refused_unread(data, monkeypatch):
    monkeypatch.setattr(howto100m, "MAX_BYTES", 100)
    with pytest.raises(TranscriptError, match=r"line 2: captions of 'Ab-_1' are larger than"):
        open_clips(data)[0]


def test_files_that_are_not_there(data):
    (data / "caption.json").write_text("[]")
    with pytest.raises(ValueError, match="has no entry like"):
        open_clips(data)
    (data / "caption.json").unlink()
    with pytest.raises(FileNotFoundError, match="no caption file"):
        open_clips(data)
    (data / "list.csv").write_text("id\nx\n")
    with pytest.raises(ValueError, match="expected a column 'video_id'"):
        open_clips(data)
