"""The command line's entry: which commands there are, and what an error looks like."""

import argparse
import sys

from tvtsv2 import convert, embed, export, search, verify

COMMANDS = (embed, search, verify, export, convert)

DESCRIPTION = """\
Use a TVTSv2 video-text model from the command line.

  tvtsv2 embed MODEL videos/ store/           # a folder of videos -> embeddings on disk, resumable
  tvtsv2 search store/ "a dog jumps"          # the files, or moments, that fit a text or an example video
  tvtsv2 verify MODEL                         # is this model folder complete and does it compute what it should?
  tvtsv2 export MODEL onnx/                   # both towers for ONNX Runtime or torch.export
  tvtsv2 convert TVTSv2_B_16.pth MODEL        # a checkpoint of the authors' release -> a model folder

MODEL is a folder written by save_pretrained (or by training/run_pretrain.py), or a name on the Hugging Face hub.
"tvtsv2 COMMAND --help" explains a command."""

EPILOG = """\
exit codes: 0 all is well; 1 an error, named on stderr, or a failed check; 2 wrong arguments; 3 finished, but some
videos could not be read and are listed in the store's ledger; 130 interrupted."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="tvtsv2",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def main(command_line: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; `command_line` None: this process's."""
    arguments = make_parser().parse_args(command_line)
    try:
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
