"""Recognition annotations in the formats as published, and broken ones."""

import json

import pytest

from benchmarks.evaluation.annotations.recognition import (
    read_class_folders,
    read_hmdb51,
    read_kinetics,
    read_ssv2,
    read_ucf101,
)


@pytest.fixture
def hmdb51(tmp_path):
    (tmp_path / "brush_hair_test_split1.txt").write_text("April #1.avi 1 \nBrush_2.avi 2 \nOther.avi 0 \n")
    (tmp_path / "wave_test_split1.txt").write_text("Wave_1.avi 2 \nWave_2.avi 1 \n")
    (tmp_path / "wave_test_split2.txt").write_text("Wave_1.avi 1 \n")
    return tmp_path


@pytest.fixture
def ucf101(tmp_path):
    (tmp_path / "classInd.txt").write_text("1 ApplyEyeMakeup\r\n2 YoYo\r\n")
    (tmp_path / "trainlist01.txt").write_text("ApplyEyeMakeup/v_A_g08_c01.avi 1\r\nYoYo/v_Y_g08_c01.avi 2\r\n")
    (tmp_path / "testlist01.txt").write_text("YoYo/v_Y_g01_c01.avi\nYoYo/v_Y_g01_c02.avi\n")
    return tmp_path


def test_hmdb51(hmdb51):
    test = read_hmdb51(hmdb51, "test", 1)
    assert test.classes == ("brush hair", "wave")
    assert (test.videos, test.labels) == (("brush_hair/Brush_2.avi", "wave/Wave_1.avi"), (0, 1))
    assert read_hmdb51(hmdb51, "train", 1).videos == ("brush_hair/April #1.avi", "wave/Wave_2.avi")
    with pytest.raises(ValueError, match="splits 1, 2 and 3"):
        read_hmdb51(hmdb51, "test", 4)


def test_ucf101(ucf101):
    test = read_ucf101(ucf101, "test", 1)
    assert test.classes == ("apply eye makeup", "yo yo")
    assert (test.videos, test.labels) == (("YoYo/v_Y_g01_c01.avi", "YoYo/v_Y_g01_c02.avi"), (1, 1))
    assert read_ucf101(ucf101, "train", 1).labels == (0, 1)


def test_ucf101_with_an_unknown_class(ucf101):
    (ucf101 / "testlist01.txt").write_text("Bowling/v_B_g01_c01.avi\n")
    with pytest.raises(ValueError, match=r"testlist01\.txt, line 1: 'Bowling' is no class"):
        read_ucf101(ucf101, "test", 1)


def test_kinetics(tmp_path):
    file = tmp_path / "val.csv"
    file.write_text(
        "label,youtube_id,time_start,time_end,split,is_cc\nyoga,a_b-c,12,22,val,0\nabseiling,x,0,10,val,0\n"
    )
    split = read_kinetics(file, "test", 1)
    assert split.classes == ("abseiling", "yoga")
    assert (split.videos, split.labels) == (("a_b-c_000012_000022", "x_000000_000010"), (1, 0))
    file.write_text("label,youtube_id,time_start,time_end\nyoga,a,12,22\nyoga,b,12,22\n")
    with pytest.raises(ValueError, match="one class only, 'yoga'"):
        read_kinetics(file, "test", 1)
    for wrong in ("soon", "inf"):
        file.write_text(f"label,youtube_id,time_start,time_end\nyoga,a,{wrong},22\n")
        with pytest.raises(ValueError, match=f"line 2: '{wrong}'"):
            read_kinetics(file, "test", 1)


def test_ssv2(tmp_path):
    labels = {"Opening something": "1", "Holding something next to something": "0"}
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(labels))
    entries = [
        {"id": "74225", "label": "holding a pen next to a cup", "template": "Holding [something] next to [something]"},
        {"id": "116154", "label": "opening a box", "template": "Opening [something]", "placeholders": ["a box"]},
    ]
    file = tmp_path / "something-something-v2-validation.json"
    file.write_text(json.dumps(entries))
    split = read_ssv2(file, "test", 1)
    assert split.classes == ("Holding something next to something", "Opening something")
    assert (split.videos, split.labels) == (("74225", "116154"), (0, 1))
    file.write_text(json.dumps([{"id": "1", "template": "Eating [something]"}]))
    with pytest.raises(ValueError, match="entry 0: the template 'Eating something' is not in"):
        read_ssv2(file, "test", 1)


def make_videos(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_class_folders(tmp_path):
    make_videos(tmp_path, "a_dog/1.mp4", "a_dog/2.webm", "a_dog/notes.txt", "Überraschung/1.avi")
    split = read_class_folders(tmp_path, "test", 1)
    assert split.classes == ("a dog", "überraschung")
    assert (split.videos, split.labels) == (("a_dog/1.mp4", "a_dog/2.webm", "Überraschung/1.avi"), (0, 0, 1))


def test_class_folders_with_parts(tmp_path):
    make_videos(tmp_path, "train/x/1.mp4", "train/y/2.mp4", "test/x/3.mp4", "test/y/4.mp4")
    assert read_class_folders(tmp_path, "train", 1).videos == ("train/x/1.mp4", "train/y/2.mp4")
    assert read_class_folders(tmp_path, "test", 1).videos == ("test/x/3.mp4", "test/y/4.mp4")
    make_videos(tmp_path / "half", "train/x/1.mp4", "train/y/1.mp4")
    with pytest.raises(ValueError, match="has no folder 'test'"):
        read_class_folders(tmp_path / "half", "test", 1)


def test_one_class_and_no_videos(tmp_path):
    make_videos(tmp_path, "only/1.mp4")
    with pytest.raises(ValueError, match="one class only"):
        read_class_folders(tmp_path, "test", 1)
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(ValueError, match="the split is empty"):
        read_class_folders(tmp_path / "empty", "test", 1)


@pytest.mark.parametrize("line", ["Brush_2.avi", "Brush_2.avi 3", "2"])
def test_broken_hmdb51_lines(hmdb51, line):
    (hmdb51 / "wave_test_split1.txt").write_text(line)
    with pytest.raises(ValueError, match=r"wave_test_split1\.txt, line 1"):
        read_hmdb51(hmdb51, "test", 1)
