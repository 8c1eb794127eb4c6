"""Every protocol from the command line on made data in the published formats: a trained model far above chance, an
untrained one at chance; records, reports, cache, and what goes wrong.
"""

import functools
import html.parser
import json
import shlex
import shutil

import av
import numpy as np
import pytest
import torch

from benchmarks.evaluation.embeddings.embedding_file import write_embedding_file
from benchmarks.evaluation.metric_table import format_metrics
from benchmarks.evaluation.protocols import bootstrap
from benchmarks.ledger import make_ledger
from benchmarks.records import read_records
from benchmarks.run import make_parser, run
from benchmarks.speed.hour import ReadingHere
from modeling_tvtsv2 import TVTSv2Model
from processing import TVTSv2Processor
from tests.support.benchmark_models import save_model
from tests.support.docs_commands import run_reading_here
from tests.support.processes import exit_codes, start_processes
from tvtsv2.models import video_embedding
from tvtsv2.store.embedding_store import EmbeddingStore

COLORS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "dark": (10, 10, 10),
    "bright": (240, 240, 240),
}
NUM_VIDEOS = {"train": 4, "test": 2}  # of each class


def write_color_video(path, color, seed):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 32
        for _ in range(4):
            image = np.clip(np.array(COLORS[color]) + rng.normal(0, 12, (32, 32, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Annotations in every format, and `videos/<part>_<color>_<n>.mp4`."""
    root = tmp_path_factory.mktemp("data")
    names = {
        part: [(f"{part}_{color}_{n}", color) for color in COLORS for n in range(count)]
        for part, count in NUM_VIDEOS.items()
    }
    for seed, (name, color) in enumerate(names["train"] + names["test"]):
        write_color_video(root / "videos" / f"{name}.mp4", color, seed)
    one_each = [(name, color) for name, color in names["test"] if name.endswith("_0")]
    rows = "".join(f"ret{i},msr{i},{name},a {color} thing\n" for i, (name, color) in enumerate(one_each))
    (root / "msrvtt.csv").write_text("key,vid_key,video_id,sentence\n" + rows)
    zeros = "\t".join(["00:00:00"] * 4)
    (root / "lsmdc.csv").write_text("".join(f"{name}\t{zeros}\ta {color} clip\n" for name, color in one_each))
    words = ("a", "thing")
    didemo = [
        {"annotation_id": f"{name}{word}", "video": f"{name}.mov", "description": f"{word} {color}"}
        for name, color in one_each
        for word in words
    ]
    (root / "didemo.json").write_text(json.dumps(didemo))
    captions = "".join(f"{name},{word} {color}\n" for name, color in one_each for word in words)
    (root / "captions.csv").write_text("video,caption\n" + captions)
    (root / "hmdb51").mkdir()
    (root / "ucf101").mkdir()
    (root / "ucf101/classInd.txt").write_text("".join(f"{i} {c.title()}\n" for i, c in enumerate(COLORS, 1)))
    for part, own in names.items():
        (root / f"ucf101/{part}list01.txt").write_text("".join(f"{c.title()}/{n}.avi\n" for n, c in own))
        lines = "".join(f"{c},{n},0,10,{part},0\n" for n, c in own)
        (root / f"k400_{part}.csv").write_text("label,youtube_id,time_start,time_end,split,is_cc\n" + lines)
        for name, color in own:
            with open(root / f"hmdb51/{color}_test_split1.txt", "a") as file:
                file.write(f"{name}.avi {1 if part == 'train' else 2} \n")
            (root / "folder" / part / color).mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "videos" / f"{name}.mp4", root / "folder" / part / color)
    choices = [
        {"clip_name": f"{n}.webm", "options": [f"a {o} thing" for o in COLORS], "answer": list(COLORS).index(c)}
        for n, c in names["test"]
    ]
    (root / "mc.jsonl").write_text("\n".join(map(json.dumps, choices)))
    return root


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """Folders of an untrained model and of one that learned the colours."""
    root = tmp_path_factory.mktemp("models")
    untrained = save_model("tvtsv2", root / "untrained")
    torch.manual_seed(0)
    model, processor = TVTSv2Model.from_pretrained(untrained), TVTSv2Processor.from_pretrained(untrained)
    files = [[str(data / "videos" / f"train_{color}_{n}.mp4") for color in COLORS] for n in range(3)]
    pixels = [processor(videos=own, return_tensors="pt")["pixel_values_videos"] for own in files]
    patterns = ("a {} thing", "a {} clip", "thing {}", "a {} thing a {}", "a {} thing {}", "a person {}")
    texts = [
        processor(text=[pattern.format(c, c) for c in COLORS], padding="max_length", return_tensors="pt")
        for pattern in patterns
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(60):
        loss = model(pixel_values_videos=pixels[step % 3], **texts[step % len(texts)], return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(root / "trained")
    processor.save_pretrained(root / "trained")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


FEW_RESAMPLES = 100


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Other processes would take a second to start for every run; tests/benchmarks/evaluation has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_embedding, "ReadingProcesses", ReadingHere)
        patch.setattr(bootstrap, "NUM_RESAMPLES", FEW_RESAMPLES)
        yield


@pytest.fixture(scope="module")
def run_once(data, cache, tmp_path_factory):
    """Run a command line on the made data, each only once; return the folder of its record."""

    @functools.cache
    def call(protocol, name, annotations, model, *more):
        line = [protocol, "--data", name, "--annotations", str(data / annotations), "--model", str(model)]
        output = tmp_path_factory.mktemp("out")
        line += ["--cache_dir", str(cache), "--output_dir", str(output), "--device", "cpu", *more]
        if name != "folder" and "--videos" not in more:
            line += ["--videos", str(data / "videos")]
        return run(make_parser().parse_args(line), line)

    return call


def read_record(folder):
    return json.loads((folder / "record.json").read_text())


@pytest.fixture
def command(run_once):
    """As `run_once`, but for the record itself."""
    return lambda *arguments: read_record(run_once(*arguments))


RETRIEVAL = [("msrvtt", "msrvtt.csv"), ("lsmdc", "lsmdc.csv"), ("didemo", "didemo.json"), ("table", "captions.csv")]
TEMPLATES = ("--templates", "a {} thing", "a {} clip")
CLASSES = [
    ("recognition", "hmdb51", "hmdb51", TEMPLATES),
    ("recognition", "ucf101", "ucf101", TEMPLATES),
    ("recognition", "k400", "k400_test.csv", ("--templates", "a {} thing")),
    ("recognition", "folder", "folder", TEMPLATES),
    ("multiple_choice", "ssv2_mc", "mc.jsonl", ()),
    ("linear_probe", "hmdb51", "hmdb51", ("--num_seeds", "2")),
    ("linear_probe", "folder", "folder", ("--num_seeds", "2")),
]


@pytest.mark.parametrize(("name", "annotations"), RETRIEVAL)
def test_retrieval(command, models, name, annotations):
    record = command("retrieval", name, annotations, models / "trained")
    for metrics in (record["metrics"], record["dual_softmax"]["metrics"]):
        assert metrics["text_to_video"]["R@1"]["value"] >= 0.8
        assert metrics["video_to_text"]["R@1"]["value"] >= 0.8
    low, high = record["metrics"]["text_to_video"]["R@1"]["interval_95"]
    assert 0 <= low <= record["metrics"]["text_to_video"]["R@1"]["value"] <= high <= 1
    assert record["dual_softmax"]["temperature"] == 0.05 and "all queries" in record["dual_softmax"]["note"]
    assert record["state"] == "complete"


@pytest.mark.parametrize(("protocol", "name", "annotations", "more"), CLASSES)
def test_classes(command, models, protocol, name, annotations, more):
    record = command(protocol, name, annotations, models / "trained", *more)
    assert record["metrics"]["top_1"]["value"] >= 0.8
    assert record["videos"]["test"]["evaluated"] == 10


def test_linear_probe_says_what_every_seed_chose(command, models, data):
    more = ("--train_annotations", str(data / "k400_train.csv"), "--num_seeds", "2")
    record = command("linear_probe", "k400", "k400_test.csv", models / "trained", *more)
    assert [one["seed"] for one in record["seeds"]["runs"]] == [0, 1]
    assert all(one["penalty"] in record["seeds"]["penalties"] for one in record["seeds"]["runs"])
    assert record["videos"]["train"]["evaluated"] == 20
    assert set(record["split_checksums"]) == {"train", "test"}


def test_an_untrained_model_is_at_chance(command, models):
    untrained = models / "untrained"
    assert command("retrieval", "msrvtt", "msrvtt.csv", untrained)["metrics"]["text_to_video"]["R@1"]["value"] <= 0.4
    assert command("multiple_choice", "ssv2_mc", "mc.jsonl", untrained)["metrics"]["top_1"]["value"] <= 0.4


def test_record_says_everything_and_no_path_but_those_of_its_command(command, models, data, tmp_path):
    record = command("retrieval", "msrvtt", "msrvtt.csv", models / "trained")
    text = json.dumps(record | {"command": ""})
    for path in (data, models, tmp_path):
        assert str(path.parent) not in text
    assert record["videos"]["test"] | {"missing_names": [], "broken_names": {}} == record["videos"]["test"]
    assert [record["videos"]["test"][name] for name in ("in_annotations", "found", "broken")] == [5, 5, 0]
    assert len(record["model"]["weight_hash"]) == 64 and record["model"]["num_frames"] == 4
    assert record["model"]["transform"]["preset"] == "evaluation"
    assert len(record["split_checksums"]["test"]) == 64
    assert {"torch", "transformers", "python"} <= set(record["versions"])
    assert record["seed"] == 0 and "cores" in record["device"]


def test_the_recorded_command_runs_again_as_it_stands(run_once, models, data, monkeypatch):
    monkeypatch.chdir(data.parent)
    record = read_record(run_once.__wrapped__("retrieval", "msrvtt", "msrvtt.csv", models / "trained"))
    words = shlex.split(record["command"])
    assert words[:4] == ["python", "-m", "benchmarks.run", "retrieval"]
    assert f"{data.name}/msrvtt.csv" in words  # below the working directory: relative to it
    again = read_record(run(make_parser().parse_args(words[3:]), words[3:]))
    assert again["metrics"] == record["metrics"] and again["command"] == record["command"]


def run_quickly(*arguments):
    bootstrap.NUM_RESAMPLES = FEW_RESAMPLES
    run_reading_here(*arguments)


def test_two_processes_report_what_one_does(command, models, data, tmp_path):
    """They take videos from one queue, and each evaluates all of them."""
    output, log = tmp_path / "out", tmp_path / "log"
    line = ["recognition", "--data", "hmdb51", "--annotations", str(data / "hmdb51"), "--videos", str(data / "videos")]
    line += ["--model", str(models / "trained"), "--cache_dir", str(tmp_path / "cache"), "--device", "cpu", *TEMPLATES]
    line += ["--output_dir", str(output)]
    processes = start_processes(2, run_quickly, str(tmp_path), "benchmarks.run", line, log=log)
    assert exit_codes(processes, timeout_seconds=300) == [0, 0], log.read_text()
    record, alone = read_record(output), command("recognition", "hmdb51", "hmdb51", models / "trained", *TEMPLATES)
    assert record["num_processes"] == 2 and record["metrics"] == alone["metrics"]
    (store,) = (tmp_path / "cache").iterdir()
    assert EmbeddingStore(store).table.count_rows() == 10


def test_the_terminal_shows_a_table_with_chance(command, models):
    record = command("retrieval", "msrvtt", "msrvtt.csv", models / "trained")
    lines = format_metrics(record).splitlines()
    assert lines[0].split() == ["value", "95", "%", "interval", "chance"]
    assert len(lines) == 1 + 4 * 6  # two directions, plain and with dual softmax
    first = next(line for line in lines if line.startswith("text to video  ") and "R@1," in line)
    assert first.split()[-1] == "20.0"  # one of five videos
    assert float(first.split()[-5]) == 100 * record["metrics"]["text_to_video"]["R@1"]["value"]
    probe = command("linear_probe", "hmdb51", "hmdb51", models / "trained", "--num_seeds", "2")
    assert "top 1 over 2 seeds: mean" in format_metrics(probe)


class Page(html.parser.HTMLParser):
    """What a page shows and loads."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text.append(text)


@pytest.mark.parametrize(
    ("protocol", "name", "annotations", "more", "wanted"),
    [
        ("retrieval", "msrvtt", "msrvtt.csv", (), ["Hardest queries", "Rank curve", "Similarities"]),
        ("recognition", "hmdb51", "hmdb51", TEMPLATES, ["Confusion", "Hardest videos", "Scores"]),
    ],
)
def test_report_is_whole_and_needs_no_other_file(run_once, models, protocol, name, annotations, more, wanted):
    folder = run_once(protocol, name, annotations, models / "trained", *more)
    page = Page()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert all(source.startswith("data:image/") for source in page.sources)
    assert sum(source.startswith("data:image/jpeg") for source in page.sources) >= 5
    assert set(wanted) <= set(page.text)


def test_missing_and_broken_videos(run_once, models, data, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(data / "videos", videos)
    (videos / "test_red_0.mp4").unlink()
    (videos / "test_blue_0.mp4").write_bytes(b"not a video")
    arguments = ("retrieval", "msrvtt", "msrvtt.csv", models / "trained", "--videos", str(videos))
    with pytest.raises(ValueError, match=r"1 are missing and 0 broken: 'test_red_0' has no file.* --allow_missing"):
        run_once(*arguments)
    folder = run_once(*arguments, "--allow_missing")
    record = read_record(folder)
    assert record["state"] == "partial" and record["allow_missing"] is True
    assert record["videos"]["test"]["missing_names"] == ["test_red_0"]
    assert list(record["videos"]["test"]["broken_names"]) == ["test_blue_0"]
    assert record["videos"]["test"]["evaluated"] == 3
    assert "partial | 3 of 5, missing allowed" in make_ledger(read_records([folder]))
    assert "PARTIAL: 3 of 5" in (folder / "report.html").read_text(encoding="utf-8")


def test_max_videos_is_partial(command, models):
    record = command("recognition", "k400", "k400_test.csv", models / "trained", "--max_videos", "6")
    assert record["state"] == "partial"
    assert [record["videos"]["test"][name] for name in ("in_annotations", "expected", "evaluated")] == [10, 6, 6]


def test_embeddings_made_elsewhere(command, data, tmp_path):
    needed = tmp_path / "needed.json"
    assert_none = ["retrieval", "--data", "msrvtt", "--annotations", str(data / "msrvtt.csv"), "--model", "x"]
    assert run(make_parser().parse_args([*assert_none, "--write_inputs", str(needed)]), []) is None
    inputs = json.loads(needed.read_text())
    rows = np.eye(5)
    file = tmp_path / "elsewhere.safetensors"
    videos, texts = (dict(zip(inputs[kind], rows, strict=True)) for kind in ("videos", "texts"))
    write_embedding_file(file, videos, texts, {"model": "ImageBind"})
    record = command("retrieval", "msrvtt", "msrvtt.csv", file, "--paper_row", "ImageBind")
    assert record["metrics"]["text_to_video"]["R@1"]["value"] == 1
    assert record["model"]["made_elsewhere"] == {"model": "ImageBind"}
    videos["test_red_0"] = np.full(5, np.nan)
    write_embedding_file(file, videos, texts)
    with pytest.raises(ValueError, match="video 'test_red_0' is zero or not finite"):
        command("retrieval", "msrvtt", "msrvtt.csv", file)


def test_wrong_use_is_told(command, models, data, capsys):
    with pytest.raises(ValueError, match=r"for 'tvtsv2' models with .*patch_size': 16"):
        command("retrieval", "msrvtt", "msrvtt.csv", models / "trained", "--paper_row", "TVTSv2 B/16")
    with pytest.raises(ValueError, match="where the class goes"):
        command("recognition", "hmdb51", "hmdb51", models / "trained", "--templates", "a person")
    with pytest.raises(ValueError, match="k400 needs --train_annotations"):
        command("linear_probe", "k400", "k400_test.csv", models / "trained")
    more = ("--train_annotations", str(data / "k400_test.csv"))
    with pytest.raises(ValueError, match="10 videos are in train and in test"):
        command("linear_probe", "k400", "k400_test.csv", models / "trained", *more)
    with pytest.raises(SystemExit):
        command("retrieval", "msrvtt", "msrvtt.csv", models / "trained", "--max_videos", "0")
    assert "error: argument --max_videos: must be at least 1, got 0" in capsys.readouterr().err
