"""The wheel in an environment of its own."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command, **options) -> str:
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy of what git tracks, so that leftovers of other builds stay out."""
    place = tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in listed:
        if not name.startswith(("benchmarks/records/", "tests/", "docs/")) and (ROOT / name).is_file():
            (place / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "source" / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, place / "source")
    (file,) = place.glob("*.whl")
    return file


def test_the_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2"):
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
        assert modules <= names
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "training" / "configs").rglob("*.yaml")}
    assert recipes | {"benchmarks/evaluation/report.html", "tvtsv2/model_card.md", "tvtsv2/py.typed"} <= names
    assert not [name for name in names if name.startswith(("tests/", "demo/"))]


def test_the_wheel_works_where_nothing_else_of_this_project_is(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = run(python, "-c", "import site; print(site.getsitepackages()[0])").strip()
    # Dependencies come from this environment; its .pth files (an editable installation) have no effect there.
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    output = run(python.with_name("tvtsv2"), "--help", cwd=tmp_path, env=environment)
    assert "tvtsv2 embed" in output
    assert run(python, "-m", "tvtsv2", "--help", cwd=tmp_path, env=environment) == output
    code = "import tvtsv2, training.trainer; print(tvtsv2.__file__)"
    assert run(python, "-c", code, cwd=tmp_path, env=environment).startswith(site)
