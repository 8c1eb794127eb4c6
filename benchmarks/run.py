"""One benchmark, one command: embeds what is needed, evaluates, and writes record.json and report.html.

    python -m benchmarks.run retrieval --data msrvtt --annotations MSRVTT_JSFUSION_test.csv --videos videos --model DIR
    python -m benchmarks.run retrieval --data didemo --annotations test_data.json --videos videos --model DIR
    python -m benchmarks.run retrieval --data lsmdc --annotations LSMDC16_challenge_1000_publictect.csv --videos …
    python -m benchmarks.run retrieval --data table --annotations captions.csv --videos videos --model DIR
    python -m benchmarks.run recognition --data hmdb51 --annotations testTrainMulti_7030_splits --videos … --model DIR
    python -m benchmarks.run recognition --data ucf101 --annotations ucfTrainTestlist --videos … --model DIR
    python -m benchmarks.run recognition --data k400 --annotations val.csv --videos … --model DIR
    python -m benchmarks.run recognition --data folder --annotations FOLDER_PER_CLASS --model DIR
    python -m benchmarks.run multiple_choice --data ssv2_mc --annotations val.jsonl --videos … --model DIR
    python -m benchmarks.run linear_probe --data k400 --train_annotations train.csv --annotations val.csv --videos …

`--model` is a folder or a hub name of a TVTSv2, CLIP, SigLIP, X-CLIP or VideoPrism, open_clip's name of a model
(`hf-hub:…`, `local-dir:…`), or a .safetensors file of embeddings made elsewhere
(benchmarks/evaluation/embeddings/embedding_file.py). Several GPUs: `accelerate launch -m benchmarks.run …`.
`python -m benchmarks.ledger` puts the records beside the paper's numbers.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

from benchmarks.evaluation.annotations import recognition as recognition_annotations
from benchmarks.evaluation.annotations import retrieval as retrieval_annotations
from benchmarks.evaluation.annotations.multiple_choice import read_ssv2_mc
from benchmarks.evaluation.embeddings.cache import this_process
from benchmarks.evaluation.embeddings.embedders import EmbedderOptions, load_embedder
from benchmarks.evaluation.embeddings.embedding_file import EmbeddingFile
from benchmarks.evaluation.embeddings.open_clip_models import SCHEMAS, load_open_clip
from benchmarks.evaluation.embeddings.sources import FileSource, ModelSource, Source
from benchmarks.evaluation.embeddings.video_folder import VideoFolder
from benchmarks.evaluation.metric_table import format_metrics
from benchmarks.evaluation.paper_tables import check_paper_row, row_titles
from benchmarks.evaluation.protocols.linear_probe import run_linear_probe
from benchmarks.evaluation.protocols.multiple_choice import run_multiple_choice
from benchmarks.evaluation.protocols.prompts import DEFAULT_TEMPLATES, check_templates, fill
from benchmarks.evaluation.protocols.recognition import run_recognition
from benchmarks.evaluation.protocols.retrieval import run_retrieval
from benchmarks.evaluation.report import write_report
from benchmarks.records import count_videos, make_record, run_state, write_record
from training.runtime.command_errors import at_least, one_line_errors
from tvtsv2.errors import ArgumentError, OneLineParser

DATA = {
    "retrieval": sorted(retrieval_annotations.READERS),
    "recognition": sorted(recognition_annotations.READERS),
    "multiple_choice": ["ssv2_mc"],
    "linear_probe": sorted(recognition_annotations.READERS),
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    protocols = parser.add_subparsers(dest="protocol", required=True, metavar="PROTOCOL", help=", ".join(DATA))
    for protocol, data in DATA.items():
        command = protocols.add_parser(protocol, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        _add_common(command, data)
        if protocol == "retrieval":
            command.add_argument(
                "--dual_softmax_temperature", type=float, help="the model's own, or 0.05, if not given"
            )
        if protocol == "recognition":
            command.add_argument("--templates", nargs="+", default=list(DEFAULT_TEMPLATES), help="prompts, {} = class")
        if protocol in ("recognition", "linear_probe"):
            command.add_argument(
                "--split", type=at_least(1), default=1, help="HMDB-51 and UCF-101 have splits 1, 2 and 3"
            )
        if protocol == "linear_probe":
            command.add_argument("--train_annotations", type=Path, help="k400, ssv2: the list of the training part")
            command.add_argument(
                "--num_seeds", type=at_least(1), default=3, help="validation parts that the penalty is chosen on"
            )
    return parser


def _add_common(command: argparse.ArgumentParser, data: list[str]) -> None:
    command.add_argument("--data", required=True, choices=data, help="the format of the annotations")
    command.add_argument("--annotations", required=True, type=Path, help="file or folder as published")
    command.add_argument("--videos", type=Path, help="folder of the videos, sub-folders included")
    command.add_argument("--model", required=True, help="folder, hub name, or .safetensors file of embeddings")
    command.add_argument("--revision", help="of a model on the hub")
    command.add_argument("--num_frames", type=at_least(1), help="frames a video; the model's own number if not given")
    command.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of the model")
    command.add_argument("--device", help="cuda if there is one, else cpu, if not given")
    command.add_argument("--batch_size", type=at_least(1), default=16, help="videos that the model sees at a time")
    command.add_argument("--num_workers", type=at_least(1), default=2, help="processes that read videos")
    command.add_argument("--cache_dir", type=Path, default=Path("outputs/embeddings"), help="embeddings, made once")
    command.add_argument("--output_dir", type=Path, help="outputs/benchmarks/<protocol>-<data>-<model> if not given")
    command.add_argument("--allow_missing", action="store_true", help="go on without missing and broken videos")
    command.add_argument(
        "--max_videos", type=at_least(1), help="only the first ones, to try things out; the run is partial"
    )
    command.add_argument("--paper_row", choices=row_titles(), metavar="TITLE", help="the ledger's row that this is")
    command.add_argument("--seed", type=at_least(0), default=0, help="of the bootstrap and of validation parts")
    command.add_argument("--write_inputs", type=Path, help="only write the videos and texts that are needed, as JSON")


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise an `ArgumentError` for arguments that no run can be made of."""
    temperature = getattr(arguments, "dual_softmax_temperature", None)
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ArgumentError(f"--dual_softmax_temperature must be more than 0 and finite, got {temperature}.")
    try:
        check_templates(getattr(arguments, "templates", DEFAULT_TEMPLATES))
        torch.device(arguments.device or "cpu")
    except (ValueError, RuntimeError) as error:
        raise ArgumentError(str(error).splitlines()[0]) from error


def read_splits(arguments: argparse.Namespace) -> dict:
    """The parts of the split by name: `test`, and `train` for the linear probe. `--max_videos` is not applied."""
    if arguments.protocol == "retrieval":
        return {"test": retrieval_annotations.READERS[arguments.data](arguments.annotations)}
    if arguments.protocol == "multiple_choice":
        return {"test": read_ssv2_mc(arguments.annotations)}
    read = recognition_annotations.READERS[arguments.data]
    splits = {"test": read(arguments.annotations, "test", arguments.split)}
    if arguments.protocol == "linear_probe":
        separate = arguments.data in ("k400", "ssv2")
        if separate != (arguments.train_annotations is not None):
            needs = "needs" if separate else "has its training part in --annotations and takes no"
            raise ArgumentError(f"{arguments.data} {needs} --train_annotations.")
        splits["train"] = read(arguments.train_annotations or arguments.annotations, "train", arguments.split)
    return splits


def cut_split(split, max_videos: int | None):
    """A split with its first videos only."""
    if max_videos is None or max_videos >= len(split.videos):
        return split
    changes = {"videos": split.videos[:max_videos]}
    if hasattr(split, "texts"):
        kept = [number for number, owner in enumerate(split.video_of_text) if owner < max_videos]
        changes["texts"] = tuple(split.texts[number] for number in kept)
        changes["video_of_text"] = tuple(split.video_of_text[number] for number in kept)
    for name in ("labels", "options", "answers"):
        if hasattr(split, name):
            changes[name] = getattr(split, name)[:max_videos]
    return dataclasses.replace(split, **changes)


def needed_inputs(arguments: argparse.Namespace, splits: dict) -> dict:
    """Videos and texts that a file of embeddings has to cover."""
    test = splits["test"]
    texts = list(getattr(test, "texts", ()))
    if arguments.protocol == "recognition":
        check_templates(arguments.templates)
        texts = fill(arguments.templates, test.classes)
    if arguments.protocol == "multiple_choice":
        texts = [text for options in test.options for text in options]
    videos = [name for split in splits.values() for name in split.videos]
    return {"videos": videos, "texts": list(dict.fromkeys(texts))}


def open_source(arguments: argparse.Namespace, device: torch.device | str) -> Source:
    """What embeds: a model over `--videos`, or a file."""
    root = arguments.videos
    if root is None and arguments.data == "folder":
        root = arguments.annotations
    if arguments.model.endswith(".safetensors"):
        return FileSource(EmbeddingFile(arguments.model), VideoFolder(root) if root else None)
    if root is None:
        raise ArgumentError("Give the folder of the videos as --videos.")
    options = EmbedderOptions(arguments.revision, device, getattr(torch, arguments.dtype), arguments.num_frames)
    videos = VideoFolder(root)  # before the model: a wrong path should cost nothing
    embedder = (load_open_clip if arguments.model.startswith(SCHEMAS) else load_embedder)(arguments.model, options)
    return ModelSource(embedder, videos, arguments.cache_dir, arguments.batch_size, arguments.num_workers)


def evaluate(arguments: argparse.Namespace, splits: dict, source: Source, device: str) -> tuple:
    """The protocol's result, what the record holds of it, and the embedded videos by part."""
    common = {"allow_missing": arguments.allow_missing}
    test = splits["test"]
    if arguments.protocol == "retrieval":
        temperature = arguments.dual_softmax_temperature
        result = run_retrieval(test, source, **common, temperature=temperature, seed=arguments.seed)
        return (
            result,
            {"metrics": result.metrics, "chance": result.chance, "dual_softmax": result.dual_softmax},
            {"test": result.videos},
        )
    if arguments.protocol == "recognition":
        result = run_recognition(test, source, **common, templates=arguments.templates, seed=arguments.seed)
        content = {"metrics": result.metrics, "chance": result.chance, "templates": arguments.templates}
        return result, content, {"test": result.videos}
    if arguments.protocol == "multiple_choice":
        result = run_multiple_choice(test, source, **common, seed=arguments.seed)
        return result, {"metrics": result.metrics, "chance": result.chance}, {"test": result.videos}
    seeds = list(range(arguments.seed, arguments.seed + arguments.num_seeds))
    result, train, summary = run_linear_probe(splits["train"], test, source, **common, seeds=seeds, device=device)
    content = {"metrics": result.metrics, "chance": result.chance, "seeds": summary}
    return result, content, {"test": result.videos, "train": train}


def run(arguments: argparse.Namespace, command_line: list[str]) -> Path | None:
    """Run a parsed command and return the folder of its record, in the main process.

    Raises:
        ArgumentError: wrong arguments, before any work.
    """
    check_arguments(arguments)
    whole = read_splits(arguments)
    splits = {name: cut_split(split, arguments.max_videos) for name, split in whole.items()}
    if arguments.write_inputs:
        arguments.write_inputs.write_text(json.dumps(needed_inputs(arguments, splits), ensure_ascii=False, indent=1))
        return None
    state = this_process(arguments.device)
    device = arguments.device or state.device
    source = open_source(arguments, device)
    if arguments.paper_row:
        check_paper_row(arguments.paper_row, source.description)
    result, outcome, videos = evaluate(arguments, splits, source, str(device))
    if not state.is_main_process:
        return None
    counts = {name: count_videos(len(whole[name].videos), len(splits[name].videos), videos[name]) for name in splits}
    record = make_record(
        "benchmarks.run",
        arguments=command_line,
        protocol=arguments.protocol,
        data=arguments.data,
        split=getattr(arguments, "split", None),
        paper_row=arguments.paper_row,
        state=run_state(counts),
        allow_missing=arguments.allow_missing,
        model=source.description,
        split_checksums={name: split.checksum for name, split in whole.items()},
        videos=counts,
        **outcome,
        seed=arguments.seed,
        device=device,
        num_processes=state.num_processes,
    )
    name = f"{arguments.protocol}-{arguments.data}-{record['model']['name'].replace('/', '--')}"
    folder = arguments.output_dir or Path("outputs/benchmarks") / name
    write_record(folder / "record.json", record)
    write_report(folder / "report.html", record, result)
    return folder


@one_line_errors(ValueError, OSError)
def main() -> None:
    """Run the command line; errors that a user can mend end it with one line."""
    parser = make_parser()
    arguments = parser.parse_args()
    try:
        folder = run(arguments, sys.argv[1:])
    except ArgumentError as error:
        parser.error(str(error))
    if folder is not None:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        counts = record["videos"]["test"]
        print(f"{record['state']}: {counts['evaluated']} of {counts['in_annotations']} videos evaluated")
        print(format_metrics(record))
        print(f"Wrote {folder}/record.json and {folder}/report.html")


if __name__ == "__main__":
    main()
