"""`tvtsv2 verify`: is a model folder complete, and does it compute what it should?"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tvtsv2.errors import ArgumentError, check_revision

HELP = "is a model folder complete, and does it compute what it should?"
DESCRIPTION = """\
Check a model folder: one line per check, then one line with the verdict. The exit code is 1 if a check fails.

  tvtsv2 verify MODEL
  tvtsv2 verify MODEL --attn_implementations eager sdpa --dtypes float32 bfloat16
  tvtsv2 verify MODEL --write_reference      # keep checksums and this machine's embeddings in the folder

Checks: every file against its checksum, those of `tvtsv2 export` against theirs; no pickled files; weights (none
missing, left over, of another shape or not finite); the settings of the processor against the model; the folder loaded
by its own code in a process without this project, and a generated video file and texts taken through its processor and
towers; determinism; a video in a batch and alone; each attention implementation in each dtype against eager float32.
Embeddings are compared with those in reference_embeddings.json, if the folder has that file; code is executed only if
its checksum is right. Of a fine-tuned classifier, logits are compared."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
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


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_revision(arguments.model, arguments.revision)
    import torch

    from tvtsv2.models.model_loading import check_attention, find_folder

    for name in arguments.attn_implementations:
        check_attention(name)
    try:
        torch.empty(0, device=arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise ArgumentError(f"--device {arguments.device}: {str(error).splitlines()[0]}") from error
    if arguments.write_reference and not Path(arguments.model).is_dir():
        raise ArgumentError(f"--write_reference needs a folder on this machine, and {arguments.model} is none.")
    folder = find_folder(arguments.model, revision=arguments.revision)
    if arguments.write_reference:
        write_reference(folder)
    reference = _read_reference(folder)
    checks = list(_check(folder, reference, arguments))
    failed = [check.name for check in checks if not check.ok]
    if arguments.json:
        print(json.dumps([vars(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:{width}}  {check.detail}")
        print(_verdict(arguments.model, len(checks), failed, has_reference=reference is not None))
    return 1 if failed else 0


def write_reference(folder: Path) -> None:
    """Write `REFERENCE_FILE` into a model folder: embeddings of fixed inputs, and the checksum of every file.

    Raises:
        ValueError: the folder does not load strictly.
    """
    from processing.atomic_files import write_whole
    from tvtsv2.models.folder_checks import REFERENCE_FILE, embed_inputs, hash_files
    from tvtsv2.models.model_checks import embed_fixed_inputs
    from tvtsv2.models.model_loading import load_for_checks, load_processor

    model = load_for_checks(folder)
    content = {kind: output.tolist() for kind, output in embed_fixed_inputs(model).items()} | {
        "file_and_texts": embed_inputs(model, load_processor(str(folder))),
        "checksums": hash_files(folder),
    }
    write_whole(folder / REFERENCE_FILE, json.dumps(content) + "\n")


def _check(folder: Path, reference: dict | None, arguments: argparse.Namespace) -> Iterator:
    from tvtsv2.models.folder_checks import Check, check_as_stranger, check_export, check_files, check_processor
    from tvtsv2.models.model_checks import check_model
    from tvtsv2.models.model_loading import load_for_checks, load_processor

    is_as_listed = True
    for check in check_files(folder, reference):
        is_as_listed &= check.ok
        yield check
    try:
        model = load_for_checks(folder)
        processor = load_processor(str(folder))
    except (ValueError, OSError) as error:
        yield Check("strict loading", False, str(error))
        return
    yield from check_export(folder, model)
    yield from check_processor(processor, model.config)
    if is_as_listed:
        yield from check_as_stranger(folder, model, processor, reference)
    else:
        yield Check("the folder's own code", False, "not executed: see the checks above")
    model = model.to(arguments.device)
    yield from check_model(model, arguments.attn_implementations, arguments.dtypes, reference)


def _verdict(name: str, num_checks: int, failed: list[str], *, has_reference: bool) -> str:
    if failed:
        return f"verdict: FAILED, {name} must not be used as it is: {', '.join(failed)}"
    against = "" if has_reference else "; no reference embeddings to compare with (--write_reference keeps some)"
    return f"verdict: ok, {num_checks} checks passed{against}"


def _read_reference(folder: Path) -> dict | None:
    from tvtsv2.models.folder_checks import REFERENCE_FILE

    file = folder / REFERENCE_FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("checksums", {}), dict):
        raise ValueError(f"{file} is no file of reference embeddings; remove it, or write it with --write_reference.")
    return content
