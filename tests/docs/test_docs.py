"""The README and the pages of docs/: every block of Python and every command runs, in order, as it stands."""

import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.speed.hour import ReadingHere
from modeling_tvtsv2 import TVTSv2Config
from modeling_tvtsv2.weight_hash import hash_weights
from tests.support.deterministic_weights import golden_config
from tests.support.docs_commands import Program, find_program
from tests.support.docs_inputs import make_inputs
from tests.support.hub_stand_in import start_hub
from tests.support.paths import ROOT
from tests.support.small_folder import embed_in_this_process
from tests.support.torchcodec_decoders import torchcodec_decoders
from tvtsv2.models import exported_towers

HOST_PAGES = sorted((ROOT / "docs" / "hosts").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *HOST_PAGES]
# A page that uses what another one leaves.
AFTER = {"search": "embed", "openvino": "onnxruntime"}
# What sets the project up: the gate runs the tests by the README's own line (.ci/run), and benchmarks/records/main_job
# holds runs of the main job from a fresh clone.
SET_UP = re.compile(r"^python3 -m venv \.venv && ")
# Commands that cannot run here as they stand: what is run instead, and why.
INSTEAD = [
    (
        re.compile(r"training/run_pretrain\.py .*configs/(b32|b16|h14)\.yaml(?!.*--plan)"),
        ["--plan"],
        "needs YT-Temporal, WebVid, CLIP's weights and many GPUs. The plan reads the same recipe to the end.",
    ),
    (
        re.compile(r"benchmarks\.study "),
        ["--seconds", "0"],
        "takes minutes to hours. Without time it only lists its runs; tests/benchmarks/study runs each claim, small.",
    ),
    (
        re.compile(r"data_building\.build_dataset "),
        ["--num_workers", "1"],
        "takes seconds to start processes. tests/training/data_building/test_build_dataset.py has several.",
    ),
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the content of every block of shell, Python or YAML, in order."""
    return re.findall(r"^```(bash|python|yaml)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#") and not SET_UP.match(line)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all pages; the hub is a stand-in, and the release's B/32 a model of a test's size."""
    place = tmp_path_factory.mktemp("docs")
    make_inputs(place)
    hub = start_hub("your-name/your-other-model")
    presets = {name: TVTSv2Config.from_preset(name) for name in ("tiny", "b16", "h14")} | {"b32": golden_config("B")}
    for name in ("b16", "h14"):  # for plans, of which tests/training/cost/test_plan.py has the whole ones
        presets[name].vision_config.num_hidden_layers = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(TVTSv2Config, "from_preset", lambda name, **fields: presets[name])
        patch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        patch.setenv("HF_TOKEN", "hf_for_the_stand_in")
        patch.setenv("NO_PROXY", "127.0.0.1")
        # A process for each folder takes seconds; tests/tvtsv2/test_verify.py has folders that need one.
        patch.setattr("tvtsv2.models.folder_checks.embed_as_stranger", embed_in_this_process)
        patch.setattr("tvtsv2.models.video_embedding.ReadingProcesses", ReadingHere)  # likewise; see test_embed.py
        # Nor does a page show these numbers: see tests/training/cost/test_plan.py and tests/benchmarks/test_run.py.
        patch.setattr("training.flops._count_one_video", lambda *shape: (10**12, 2 * 10**12, 2))
        patch.setattr("benchmarks.evaluation.protocols.bootstrap.NUM_RESAMPLES", 10)
        # Other tests run beside this one: threads that share cores slow each other down.
        patch.setattr("training.run_script.use_all_cores", lambda args: None)
        patch.setattr("tvtsv2.models.exported_towers.export_onnx", once_per_tower(exported_towers.export_onnx))
        yield place
    hub.shutdown()


def once_per_tower(export):
    """Several pages write the same towers as ONNX, which takes seconds: later ones get a copy of the file."""
    written = {}

    def export_or_copy(tower, file: Path) -> None:
        key = type(tower), hash_weights(tower.model)
        if key in written:
            file.write_bytes(written[key])
        else:
            export(tower, file)
            written[key] = file.read_bytes()

    return export_or_copy


@pytest.fixture(scope="module")
def run_page(place):
    """Runs a page once, after the pages it needs."""
    finished = set()

    def run(page: Path) -> None:
        if page.stem in AFTER:
            run(page.with_stem(AFTER[page.stem]))
        if page in finished:
            return
        if page in HOST_PAGES:
            pytest.importorskip(page.stem.replace("-", "_"))
        if page.stem == "mteb":  # decodes the videos of its tasks by torchcodec
            torchcodec_decoders()
        names = {"__name__": f"page_{page.stem}"}
        for language, block in blocks(page):
            if language == "yaml":  # its first line is a comment with the name of the file
                Path(block.splitlines()[0].removeprefix("# ")).write_text(block, encoding="utf-8")
            elif language == "python":
                # In a thread that ends: OpenVINO takes the signal stack of the thread that compiles a model with it.
                with ThreadPoolExecutor(1) as thread:
                    thread.submit(exec, compile(block, str(page), "exec"), names).result()
            else:
                for line in commands(block):
                    run_command(page, line)
        finished.add(page)

    return run


def run_command(page: Path, line: str) -> None:
    for pattern, options, _ in INSTEAD:
        if pattern.search(line):
            line = shlex.join([*shlex.split(line), *options])
    code = find_program(shlex.split(line, comments=True)).run()
    assert code == 0, (
        f"{page.name}: exit code {code} of\n  {line}\nThe page may be wrong. If the command needs files that are not "
        "there, make them in tests/support/docs_inputs.py; if it cannot run here at all, say in INSTEAD "
        "what is run in its place, and why."
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs_in_order(page, run_page):
    run_page(page)


def test_a_folder_of_videos_becomes_a_published_model(place, run_page):
    run_page(ROOT / "docs" / "pretrain.md")
    assert json.loads((place / "my_videos" / "talk.mp4.json").read_text())["segments"]
    for dataset in ("my_dataset", "my_next_dataset"):
        report = json.loads((place / dataset / "report.json").read_text())
        assert sum(report["accepted"].values()) + sum(report["num_rejected"].values()) == 6
        (unheard,) = report["rejected"]["too short, or too few words for the clips"]  # five seconds of a tone
        assert unheard["video"] == "talk.mp4"
    assert 0 <= json.loads((place / "outputs/my_run/eval_results.json").read_text())["text_to_video_R@1"] <= 1
    assert "text_to_video R@1" in (place / "your-name/my-model/README.md").read_text()


def test_what_is_run_instead_is_still_on_a_page():
    lines = [
        line for page in PAGES for language, block in blocks(page) if language == "bash" for line in commands(block)
    ]
    assert len(lines) > 20
    for pattern, _, _ in INSTEAD:
        assert any(map(pattern.search, lines)), f"no page has a command for {pattern.pattern}"


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("tvtsv2 embed model videos store", Program("tvtsv2.main", ["embed", "model", "videos", "store"])),
        ("python -m benchmarks.run recognition", Program("benchmarks.run", ["recognition"])),
        ("accelerate launch --multi_gpu --module tvtsv2 embed", Program("tvtsv2.main", ["embed"])),
        (
            "torchrun --nproc_per_node 2 training/run_finetune.py --data a",
            Program("training.run_finetune", ["--data", "a"], 2),
        ),
    ],
)
def test_programs_of_commands(line, program):
    assert find_program(shlex.split(line)) == program


def test_a_command_that_is_not_known_or_fails_is_told(place):
    with pytest.raises(ValueError, match="not 'curl'"):
        run_command(ROOT / "README.md", "curl example.org")
    with pytest.raises(AssertionError, match=r"(?s)README\.md: exit code 1 of.*search nowhere x.*docs_inputs"):
        run_command(ROOT / "README.md", "tvtsv2 search nowhere x")


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(((?!https?:)[\w/.-]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
