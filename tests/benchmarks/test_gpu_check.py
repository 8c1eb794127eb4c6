"""The GPU check: no part stops another, results outlive a time limit, and a CPU rehearses all of it."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from benchmarks import gpu_check
from benchmarks.speed.gpu import commands
from tests.support.docs_commands import read_here, run_main
from tests.support.paths import ROOT
from tests.support.processes import exit_codes, start_processes

HERE = __name__


def good_part(setting, report):
    report("answer", 42)


def failing_part(setting, report):
    report("first", 1)
    raise ValueError(f"broken in {ROOT}/benchmarks/x.py")


def dying_part(setting, report):
    os._exit(7)


def endless_part(setting, report):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    report("child", child.pid)
    time.sleep(600)


@pytest.fixture
def parts(monkeypatch):
    names = {"failing": 60, "dying": 60, "endless": 5, "good": 60}
    monkeypatch.setattr(gpu_check, "PARTS", {name: (f"{HERE}:{name}_part", limit) for name, limit in names.items()})
    monkeypatch.setattr(gpu_check, "IMPORTED_ONCE", ())


def run(path: Path, *options: str) -> tuple[int, dict]:
    code = gpu_check.main(["--device", "cpu", "--output", str(path), *options])
    return code, json.loads(path.read_text())["parts"]


def test_no_part_stops_another(parts, tmp_path):
    code, found = run(tmp_path / "check.json")
    assert code == 1
    assert {name: entry["state"] for name, entry in found.items()} == {
        "failing": "failed",
        "dying": "failed",
        "endless": "timed out",
        "good": "done",
    }
    assert found["failing"]["results"] == {"first": 1} and "broken in benchmarks/x.py" in found["failing"]["error"]
    assert "exit code 7" in found["dying"]["error"]
    assert found["good"]["results"] == {"answer": 42}
    stat = Path(f"/proc/{found['endless']['results']['child']}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z", "what a part started must end with it"


def test_a_part_that_is_done_is_not_repeated(parts, tmp_path, monkeypatch):
    path = tmp_path / "check.json"
    run(path, "--parts", "good", "failing")
    before = path.read_text()
    monkeypatch.setattr(sys.modules[HERE], "good_part", failing_part)
    monkeypatch.setattr(sys.modules[HERE], "failing_part", good_part := lambda setting, report: report("answer", 43))
    code, found = run(path, "--parts", "good", "failing")
    assert code == 0 and callable(good_part)
    assert found["good"] == json.loads(before)["parts"]["good"]
    assert found["failing"] == found["failing"] | {"state": "done", "results": {"answer": 43}}


def rehearse(path: str) -> None:
    """In a process of its own: run every part, and only the main job in a Python that imports everything anew."""
    start_python = commands.run_python

    def run_python(*arguments: str, device: str) -> tuple[float, str]:
        if "embed" not in arguments:
            return start_python(*arguments, device=device)
        os.environ["ACCELERATE_USE_CPU"] = "true"
        read_here()
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert run_main("tvtsv2.main", list(arguments[2:])) == 0
        return 1.0, output.getvalue()

    commands.run_python = run_python
    sys.exit(gpu_check.main(["--device", "cpu", "--small", "--seconds", "900", "--output", path]))


def test_a_cpu_rehearses_every_part(tmp_path):
    path, log = tmp_path / "check.json", tmp_path / "log"
    codes = exit_codes(start_processes(1, rehearse, str(path), log=log), timeout_seconds=1000)
    record = json.loads(path.read_text())
    states = {name: entry["state"] for name, entry in record["parts"].items()}
    assert codes == [0], f"{states}\n{log.read_text()[-4000:]}"
    assert states == dict.fromkeys(gpu_check.PARTS, "done")
    results = json.dumps(record["parts"])  # the command itself names its --output
    assert not any(place in results for place in (str(ROOT), str(tmp_path), tempfile.gettempdir() + "/"))
    assert all(entry["results"] for entry in record["parts"].values())
