"""`tvtsv2 verify`: is a model folder complete, and does it compute what it should?"""

import argparse
import json
from pathlib import Path

DESCRIPTION = """\
Check a model folder, a line per check; the exit code is 1 if one fails.

  tvtsv2 verify MODEL
  tvtsv2 verify MODEL --attn_implementations eager sdpa --dtypes float32 bfloat16
  tvtsv2 verify MODEL --write_reference      # keep this machine's embeddings, for others to compare with

Checked are: weights (all there, none left over, no shape off, all finite, no pickled files), the processor (its type,
its pixel statistics, its sizes and the tokenizer against the model), determinism, that a video in a batch comes out as
alone, and the embeddings of a fixed input: each attention implementation in each dtype against eager float32, and that
against reference_embeddings.json if the folder has it."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Adds this command."""
    parser = subparsers.add_parser(
        "verify",
        help="is a model folder complete, and does it compute what it should?",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="model folder or hub name")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the hub")
    parser.add_argument("--attn_implementations", nargs="+", default=["eager", "sdpa"], metavar="NAME")
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16", "float16")
    )
    parser.add_argument("--device", default="cpu", help="where to compute (%(default)s)")
    parser.add_argument(
        "--write_reference", action="store_true", help="write reference_embeddings.json into the folder"
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    from tvtsv2.models.model_checks import check_files, check_model, check_processor, compute_reference
    from tvtsv2.models.model_loading import load_model, load_processor

    folder = Path(arguments.model)
    if arguments.write_reference and not folder.is_dir():
        raise ValueError(f"--write_reference needs a folder on this machine, and {arguments.model} is none.")
    # Raises if a weight is missing, left over or of another shape.
    model = load_model(arguments.model, revision=arguments.revision, attn_implementation="eager").to(arguments.device)
    processor = load_processor(arguments.model, revision=arguments.revision)
    if arguments.write_reference:
        from processing.atomic_files import write_whole

        write_whole(folder / REFERENCE_FILE, json.dumps(compute_reference(model)) + "\n")
    checks = [
        *(check_files(folder) if folder.is_dir() else []),
        *check_processor(processor, model.config),
        *check_model(model, arguments.attn_implementations, arguments.dtypes, _read_reference(folder)),
    ]
    if arguments.json:
        print(json.dumps([vars(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:{width}}  {check.detail}")
    return 0 if all(check.ok for check in checks) else 1


REFERENCE_FILE = "reference_embeddings.json"


def _read_reference(folder: Path) -> dict | None:
    file = folder / REFERENCE_FILE
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
