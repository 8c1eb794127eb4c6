"""Who may import whom, what travelling files may look like, and that imports find this project and stay light."""

import ast
import functools
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2")
# Package -> those of ours that it may import; `processing` only in its `__init__`.
ALLOWED = {
    "modeling_tvtsv2": set(),
    "processing": {"modeling_tvtsv2"},
    "training": {"modeling_tvtsv2", "processing"},
    "benchmarks": {"modeling_tvtsv2", "processing", "training", "tvtsv2"},
    "tvtsv2": {"modeling_tvtsv2", "processing"},
}
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TRAVELLING = [path for path in SOURCES if path.name.endswith("_tvtsv2.py")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import of a file, also those inside functions and under `if`."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imported_packages(path: Path) -> set[str]:
    """The top-level names that a file imports absolutely, as in `import a.b` or `from a.b import c`."""
    names = set()
    for node in imports_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif node.level == 0:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_go_one_way(path):
    package = path.relative_to(ROOT).parts[0]
    ours = imported_packages(path) & {*PACKAGES, "tests"} - {package}
    allowed = ALLOWED[package]
    if path.is_relative_to(ROOT / "benchmarks" / "speed" / "gpu"):
        allowed = allowed | {"tests"}  # golden numbers: a check on a machine of its own, not a library
    if path == ROOT / "benchmarks" / "speed" / "reading" / "conformance.py":
        allowed = allowed | {"tests"}  # the files that the reader is tested with
    if package == "processing" and path.name != "__init__.py":
        allowed = set()
    assert ours <= allowed


def test_files_that_travel_have_names_of_their_own_and_lie_flat():
    names = [path.name for path in TRAVELLING]
    assert len(names) == len(set(names))
    assert {path.parent for path in TRAVELLING} == {ROOT / "modeling_tvtsv2", ROOT / "processing"}


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_files_that_travel_import_only_what_travels_with_them(path):
    assert not imported_packages(path) & {*PACKAGES, "tests"}
    for node in imports_of(path):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            line = ast.unparse(node)
            assert node.level == 1 and node.module is not None, f"only `from .x_tvtsv2 import Y` is copied: {line}"
            assert node.module.endswith("_tvtsv2") and (path.parent / f"{node.module}.py").is_file(), line


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_files_that_travel_hold_no_relative_import_but_in_code(path):
    """transformers looks for them by a regular expression, which takes a docstring's example for an import."""
    source = path.read_text()
    found = re.findall(r"^\s*from\s+\.(\S+)\s+import", source, re.MULTILINE)
    real = [node.module for node in imports_of(path) if isinstance(node, ast.ImportFrom) and node.level]
    assert sorted(found) == sorted(real)
    assert not re.findall(r"^\s*import\s+\.", source, re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in TRAVELLING if path.parent.name == "modeling_tvtsv2"], ids=name_of)
def test_modeling_files_keep_their_annotations(path):
    """transformers reads a model's config class from an annotation, which must not have become a string."""
    assert "from __future__ import annotations" not in path.read_text()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_hides_a_library(path):
    """Launching a script puts its folder first on the path: a `datasets.py` there would stand in for the library."""
    if path.name != "__init__.py":
        names = sys.stdlib_module_names | {"datasets", "evaluate", "accelerate", "transformers", "torch", "peft", "av"}
        assert path.stem not in names


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_this_project_s(package):
    """The names are common ones, and another distribution's `training` would be found without a word."""
    assert Path(importlib.import_module(package).__file__).resolve() == (ROOT / package / "__init__.py").resolve()


IMPORT_IN_TURN = """
import json, sys
held = {{}}
import modeling_tvtsv2
held["modeling_tvtsv2"] = list(sys.modules)
import processing
held["processing"] = list(sys.modules)
from tvtsv2.reading.reading_processes import PRELOADED
__import__(*PRELOADED)
held["reading processes"] = list(sys.modules)
import tvtsv2
held["tvtsv2"] = list(sys.modules)
from transformers import AutoModel, AutoProcessor, AutoVideoProcessor
from transformers.pipelines import PIPELINE_REGISTRY
classes = [type(auto.from_pretrained({folder!r})) for auto in (AutoModel, AutoProcessor, AutoVideoProcessor)]
for task in ("zero-shot-video-classification", "video-feature-extraction"):
    classes.append(PIPELINE_REGISTRY.check_task(task)[1]["impl"])
held["registered"] = [found.__module__.partition(".")[0] for found in classes]
print(json.dumps(held))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> dict[str, list[str]]:
    """What is loaded after each of our packages, imported in turn by one fresh process."""
    from tests.support.small_folder import write_small_folder

    code = IMPORT_IN_TURN.format(folder=str(write_small_folder(tmp_path_factory.mktemp("imports") / "model")))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("package", ["modeling_tvtsv2", "processing", "tvtsv2"])
def test_importing_a_package_stays_light(package, imported):
    unwanted = {"matplotlib", "datasets", "evaluate", "peft", "pandas", "training", "benchmarks"}
    if package == "modeling_tvtsv2":
        unwanted |= {"av", "processing"}
    assert package in imported[package] and not unwanted.intersection(imported[package])


def test_reading_processes_are_forked_without_the_table_s_library(imported):
    assert "av" in imported["reading processes"] and "lancedb" not in imported["reading processes"]


def test_importing_tvtsv2_registers_every_auto_class_and_pipeline(imported):
    assert len(imported["registered"]) == 5 and set(imported["registered"]) == {"modeling_tvtsv2", "processing"}


def test_the_command_line_answers_without_loading_libraries():
    command = [sys.executable, "-X", "importtime", "-m", "tvtsv2", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert "argparse" in imported and "tvtsv2 embed" in run.stdout
    assert not imported & {"av", "processing", "torch", "transformers", "accelerate", "pyarrow", "lancedb", "numpy"}


@functools.cache
def training_imports() -> dict[str, set[str]]:
    """Return the parts of `training/` (its folders, and its files at the top) that each of them imports."""
    graph: dict[str, set[str]] = {}
    for path in sorted((ROOT / "training").rglob("*.py")):
        part = path.relative_to(ROOT / "training").parts[0].removesuffix(".py")
        graph.setdefault(part, set())
        for node in imports_of(path):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if names == ["training"]:
                names = [f"training.{alias.name}" for alias in node.names]
            graph[part] |= {name.split(".")[1] for name in names if name.startswith("training.")} - {part}
    return graph


def test_parts_of_training_do_not_import_each_other_in_circles():
    graph = training_imports()
    while leaves := {part for part, imported in graph.items() if not imported & graph.keys()}:
        graph = {part: imported for part, imported in graph.items() if part not in leaves}
    assert not graph, f"a circle among {graph}"


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("runtime", set()),
        ("transcripts", set()),
        ("sources", {"runtime", "transcripts", "masking"}),
        ("data_building", {"runtime", "transcripts", "sources"}),
        ("contrast", set()),
        ("parameter_rules", set()),
    ],
)
def test_arrows_inside_training(part, allowed):
    assert training_imports()[part] <= allowed
