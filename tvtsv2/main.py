"""The command line's entry: which commands there are, and what an error looks like."""

import argparse
import os
import select
import sys
import warnings

from tvtsv2 import convert, embed, export, publish, search, serve, verify
from tvtsv2.errors import ArgumentError, OneLineParser, in_one_sentence

COMMANDS = {
    "embed": embed,
    "search": search,
    "verify": verify,
    "export": export,
    "convert": convert,
    "publish": publish,
    "serve": serve,
}

DESCRIPTION = """\
Use a TVTSv2 video-text model from the command line.

  tvtsv2 embed MODEL videos/ store/           # a folder of videos -> embeddings on disk, resumable
  tvtsv2 search store/ "a dog jumps"          # the files, or moments, that fit a text or an example video
  tvtsv2 verify MODEL                         # is this model folder complete and does it compute what it should?
  tvtsv2 export MODEL onnx/                   # both towers for ONNX Runtime or torch.export
  tvtsv2 convert TVTSv2_B_16.pth MODEL        # a checkpoint of the authors' release -> a model folder
  tvtsv2 publish MODEL your-name/your-model   # a folder for the hub, with a model card
  tvtsv2 serve MODEL                          # embeddings over HTTP, in OpenAI's form

MODEL is a folder written by save_pretrained (or by training/run_pretrain.py), or a name on the Hugging Face hub.
"tvtsv2 COMMAND --help" explains a command."""

EPILOG = """\
exit codes: 0 all is well; 1 an error, named on stderr, or a failed check; 2 wrong arguments; 3 finished, but some
videos could not be read and are listed in the store's failures.jsonl; 130 interrupted."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = OneLineParser(
        prog="tvtsv2",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(
            subparsers.add_parser(
                name,
                help=command.HELP,
                description=command.DESCRIPTION,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser


def main(command_line: list[str] | None = None) -> int:
    """Run one command and return its exit code; `command_line` None: this process's."""
    arguments = make_parser().parse_args(command_line)
    quiet_libraries()
    try:
        return COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt:
        after = "the same command continues" if arguments.command == "embed" else "nothing incomplete is left behind"
        print(f"interrupted; {after}.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, BrokenPipeError) and _output_is_closed():
            return 0
        print(f"error: {in_one_sentence(error)}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1


def _output_is_closed() -> bool:
    """Return whether the reader of our output, such as `head`, has seen enough; the rest is then dropped."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not poll.poll(0):  # neither an error nor a hang-up: another pipe broke
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered is written at exit
    return True


def quiet_libraries() -> None:
    """Silence progress bars and warnings of libraries, also in processes started later; their errors still show."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_LOGS", "-all")  # errors only; where torchao is installed, torch warns of it
    warnings.filterwarnings("ignore")
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
