"""How commands end: one line and an exit code."""

import pytest

from tests.support.paths import ROOT
from training.runtime.command_errors import STARTS_ANEW, OneLineParser, one_line_errors


def ended(error: BaseException, **options) -> int | str:
    """The exit code, or the line that stands for 1, of a command that raises an error."""

    @one_line_errors(ValueError, OSError, **options)
    def command():
        raise error

    with pytest.raises(SystemExit) as stop:
        command()
    return stop.value.code


def test_an_error_is_one_line_and_ctrl_c_says_what_comes_next(capsys):
    assert ended(ValueError("the list is empty")) == "error: the list is empty"
    assert ended(OSError()) == "error: OSError"
    assert ended(ValueError("no model\nat all:\n\nTraceback\n  …")) == "error: no model at all:"
    assert ended(ValueError("404\n\nno such model")) == "error: 404 no such model"
    assert ended(ValueError("they differ\n  seed: 1\n  lr: 2")) == "error: they differ\n  seed: 1\n  lr: 2"
    assert ended(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted; the same command goes on.\n"
    assert ended(KeyboardInterrupt(), after_interruption=STARTS_ANEW) == 130
    assert capsys.readouterr().err == "interrupted; the same command starts anew.\n"


@pytest.mark.parametrize("folder", ["training", "benchmarks", "tvtsv2"])
def test_every_command_has_this_parser_and_ends_in_one_line(folder):
    texts = {path: path.read_text() for path in (ROOT / folder).rglob("*.py")}
    assert not [path for path, text in texts.items() if "argparse.ArgumentParser(" in text]
    commands = [path for path, text in texts.items() if "parse_args(" in text and folder != "tvtsv2"]
    assert not [path for path in commands if "one_line_errors(" not in texts[path]]


def test_other_errors_come_out_as_they_are():
    with pytest.raises(KeyError), one_line_errors(ValueError):
        raise KeyError


def test_wrong_arguments_are_one_line(capsys):
    parser = OneLineParser(description="A command.")
    parser.add_argument("--number", type=int, default=3, help="of things")
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--number", "many"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: argument --number: invalid int value: 'many'\n"
    text = parser.format_help()
    assert "of things (default: 3)" in text and "2 wrong arguments" in text
