"""Processes without this project: forked from one that has imported transformers, and nothing of ours, once.

`run` stands for `subprocess.run` of Python, whose imports take many seconds each time. One server per test process.
"""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = """
import json, os, sys, traceback
import torch
from transformers import (
    AutoConfig, AutoModel, AutoModelForPreTraining, AutoModelForVideoClassification, AutoProcessor, AutoVideoProcessor,
    dynamic_module_utils, pipeline,
)
ours = [name for name in sys.modules if name.partition(".")[0] in {"modeling_tvtsv2", "processing", "tvtsv2"}]
assert not ours, ours

def run(words, folder, environment, output):
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}/{name}", os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    dynamic_module_utils.HF_MODULES_CACHE = environment["HF_MODULES_CACHE"]  # was read from the environment
    if words[0] == "-c":
        source, sys.argv = words[1], ["-c", *words[2:]]
    else:
        source, sys.argv = open(words[0], encoding="utf-8").read(), words
    exec(compile(source, words[0], "exec"), {"__name__": "__main__"})

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(*json.loads(line))
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _server() -> subprocess.Popen:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=tempfile.gettempdir(), env=environment, **pipes)
    atexit.register(server.kill)
    return server


def run(command: list[str], *, cwd: Path, env: dict[str, str], **_) -> subprocess.CompletedProcess:
    """Return how `python -c CODE …` or `python SCRIPT …` ended in a process of its own, with its output as text.

    Args:
        env: with HF_MODULES_CACHE; other variables that transformers reads when it is imported have no effect.
    """
    server = _server()
    with tempfile.TemporaryDirectory() as output:
        print(json.dumps([command[1:], str(cwd), env, output]), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        texts = [(Path(output) / name).read_text(encoding="utf-8") for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(command, code, *texts)
