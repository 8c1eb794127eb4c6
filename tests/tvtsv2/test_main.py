"""How the command line ends when a pipe breaks: its own output's, which `head` closes, or another."""

import os
from types import SimpleNamespace

import pytest

from tvtsv2 import main
from tvtsv2.errors import in_one_sentence


def run(arguments):
    print("line", flush=True)
    raise BrokenPipeError(32, "Broken pipe", "a reading process")


def test_lines_of_libraries_are_joined():
    assert in_one_sentence(OSError("no model\nat all:\n\nTraceback\n  …")) == "no model at all:"
    assert (
        in_one_sentence(OSError("404 Client Error.\n\nRepository Not Found"))
        == "404 Client Error. Repository Not Found"
    )
    assert in_one_sentence(ValueError("they differ\n  seed: 1")) == "they differ\n  seed: 1"


@pytest.mark.parametrize(("has_reader", "code", "message"), [(False, 0, ""), (True, 1, "a reading process")])
def test_a_broken_pipe(has_reader, code, message, monkeypatch, capsys):
    command = SimpleNamespace(HELP="", DESCRIPTION="", add_arguments=lambda parser: None, run=run)
    reading, writing = os.pipe()
    if not has_reader:
        os.close(reading)
    monkeypatch.setattr(main, "COMMANDS", {"command": command})
    with open(writing, "w") as output:
        monkeypatch.setattr("sys.stdout", output)
        assert main.main(["command"]) == code
        print("what comes after is dropped")
    assert message in capsys.readouterr().err
    if has_reader:
        os.close(reading)
