"""The captioned clips of a narrated-shapes corpus as benchmarks in the published formats.

    python -m training.narrated_shapes.corpus --folder outputs/shapes --seed 1234 --num_train_videos 0 \
        --num_heldout_videos 0 --num_train_captions 1500 --num_heldout_captions 560
    python -m benchmarks.evaluation.shapes_sets --corpus outputs/shapes --folder outputs/shapes_sets

Whatever the main job's model learned on another seed of that corpus can so be put through every protocol. Only files
of the corpus are read. The class of a clip is its color. Annotations refer to clips by `<split><number>`; `videos/`
has links to them.
"""

import argparse
import csv
import json
from pathlib import Path

COLORS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "white", "black")
PARTS = {"train": "train", "test": "heldout"}
NUM_OPTIONS = 5


def write_sets(corpus: Path, folder: Path) -> None:
    """Writes the annotations of every benchmark and a folder `videos` of links.

    Raises:
        FileNotFoundError: `corpus` is no such corpus.
        ValueError: the corpus was made by a version that wrote no colors.
    """
    clips = {part: read_clips(corpus, part) for part in PARTS}
    videos = folder / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        for name, path, _, _ in clips[part]:
            link = videos / f"{name}.mp4"
            if not link.is_symlink():
                link.symlink_to(path.resolve())
    test = [(name, caption) for name, _, caption, _ in clips["test"]]
    _write_retrieval(folder, test)
    _write_recognition(folder, clips)
    _write_multiple_choice(folder, clips["test"])


def read_clips(corpus: Path, part: str) -> list[tuple[str, Path, str, str]]:
    """Name, path, caption and color of each clip of `train` or `test`."""
    table = corpus / "webvid" / f"{PARTS[part]}.tsv"
    if not table.is_file():
        raise FileNotFoundError(f"There is no {table}; make a corpus with python -m training.narrated_shapes.corpus.")
    clips = []
    with open(table, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row.get("color") not in COLORS:
                raise ValueError(f"{table} has no column 'color' of known colors; make the corpus again.")
            path = corpus / "webvid" / row["path"]
            clips.append((f"{part}{path.stem}", path, row["caption"], row["color"]))
    return clips


def _write_retrieval(folder: Path, clips: list[tuple[str, str]]) -> None:
    rows = [[f"ret{number}", f"msr{number}", *clip] for number, clip in enumerate(clips)]
    _write_table(folder / "msrvtt.csv", [["key", "vid_key", "video_id", "sentence"], *rows], ",")
    times = ["00:00:00"] * 4
    _write_table(folder / "lsmdc.csv", [[name, *times, caption] for name, caption in clips], "\t")
    _write_table(folder / "captions.csv", [["video", "caption"], *clips], ",")
    entries = [
        {"annotation_id": number, "video": f"{name}.mp4", "description": caption, "num_segments": 1, "times": [[0, 0]]}
        for number, (name, caption) in enumerate(clips)
    ]
    _write_json(folder / "didemo.json", entries)


def _write_recognition(folder: Path, clips: dict[str, list]) -> None:
    ucf101, hmdb51 = folder / "ucf101", folder / "hmdb51"
    ucf101.mkdir(exist_ok=True)
    hmdb51.mkdir(exist_ok=True)
    (ucf101 / "classInd.txt").write_text("".join(f"{n} {color.title()}\n" for n, color in enumerate(COLORS, start=1)))
    roles: dict[str, list[str]] = {color: [] for color in COLORS}
    for part, own in clips.items():
        lines = [f"{color.title()}/{name}.mp4" for name, _, _, color in own]
        numbers = [f" {COLORS.index(color) + 1}" if part == "train" else "" for _, _, _, color in own]
        text = "".join(f"{line}{number}\n" for line, number in zip(lines, numbers, strict=True))
        (ucf101 / f"{part}list01.txt").write_text(text)
        rows = [[color, name, 0, 10, part, 0] for name, _, _, color in own]
        header = ["label", "youtube_id", "time_start", "time_end", "split", "is_cc"]
        _write_table(folder / f"k400_{part}.csv", [header, *rows], ",")
        for name, _, _, color in own:
            roles[color].append(f"{name}.mp4 {1 if part == 'train' else 2} ")
    for color, lines in roles.items():
        (hmdb51 / f"{color}_test_split1.txt").write_text("\n".join(lines) + "\n")


def _write_multiple_choice(folder: Path, clips: list) -> None:
    """The own caption among those of the next clips that differ from it."""
    lines = []
    for number, (name, _, caption, _) in enumerate(clips):
        others = [clips[(number + step) % len(clips)][2] for step in range(1, len(clips))]
        options = list(dict.fromkeys([caption, *others]))[:NUM_OPTIONS]
        answer = number % len(options)
        options[0], options[answer] = options[answer], options[0]
        lines.append(json.dumps({"clip_name": f"{name}.mp4", "options": options, "answer": answer}))
    (folder / "ssv2_mc.jsonl").write_text("\n".join(lines) + "\n")


def _write_table(path: Path, rows: list, delimiter: str) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)


def _write_json(path: Path, content: list) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def main() -> None:
    """Writes the sets of a corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by training.narrated_shapes.corpus")
    parser.add_argument("--folder", type=Path, required=True, help="where the annotations go")
    arguments = parser.parse_args()
    write_sets(arguments.corpus, arguments.folder)
    print(f"Wrote annotations and links to videos to {arguments.folder}")


if __name__ == "__main__":
    main()
