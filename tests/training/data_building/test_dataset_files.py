"""The log of the checks and the files of a dataset: memory, near-duplicate words, and whole rows."""

import tracemalloc

import pyarrow.parquet as pq

from training.data_building.dataset_files import write_output
from training.data_building.video_checks import VideoCheck


def test_lines_of_the_log_survive(tmp_path):
    check = VideoCheck("ä.mp4", "1 2", duration=3.5, words=(("hé", 0.25),), content_hash="ff")
    again = VideoCheck.from_json(check.to_json())
    assert [tuple(word) for word in again.words] == [("hé", 0.25)] and again.video == "ä.mp4"


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Five times the rows may cost their names, not their transcripts."""

    def peak_bytes(num_rows):
        folder = tmp_path / str(num_rows)
        folder.mkdir()
        places = []
        with open(folder / "checks.jsonl", "wb") as file:
            for index in range(num_rows):
                places.append(file.tell())
                words = tuple((f"word{index}-{number}", float(number)) for number in range(300))
                check = VideoCheck(f"{index}.mp4", "1", duration=400.0, content_hash=str(index), words=words)
                file.write(check.to_json().encode() + b"\n")
        tracemalloc.start()
        write_output(folder, folder / "checks.jsonl", places, 0.0, {}, {})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(pq.read_metadata(file).num_rows for file in (folder / "data").iterdir()) == num_rows
        return peak

    peak_bytes(10)  # what is loaded once
    assert peak_bytes(600) < 1.3 * peak_bytes(120)


def test_duplicates_are_of_accepted_videos_and_a_split_has_all_words_of_its_rows(tmp_path):
    """A series shares an opening, which owns the keys; one video is nearly its own duplicate's duplicate."""
    words = [f"word{number}" for number in range(60)]
    other = [f"other{number}" for number in range(60)]
    texts = {
        f"series{number}": [f"hello{k}" for k in range(200)] + [f"s{number}x{k}" for k in range(25)]
        for number in range(7)
    }
    texts |= {"v1": words, "v2": words[:54] + other[:6], "v3": words[:48] + other[:12]}  # 90, 90 and 80 %
    texts |= {"last": texts["series6"]}  # whose MinHash keys others own
    places = []
    with open(tmp_path / "checks.jsonl", "wb") as file:
        for name, text in texts.items():
            places.append(file.tell())
            timed = tuple((word, float(time)) for time, word in enumerate(text))
            file.write(VideoCheck(name, "1", content_hash=name, words=timed).to_json().encode() + b"\n")
    report = write_output(tmp_path, tmp_path / "checks.jsonl", places, 0.0, {}, {})
    rejected = {row["video"]: row["detail"] for row in report["rejected"]["nearly the same words as another video"]}
    assert rejected == {"v2": "as v1, 90%", "last": "as series6, 100%"}
    rows = pq.read_table(tmp_path / "data").to_pylist()
    assert {row["video"]: [word["word"] for word in row["words"]] for row in rows} == {
        name: text for name, text in texts.items() if name not in rejected
    }
