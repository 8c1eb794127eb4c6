"""Turns a checkpoint into a folder for the Hugging Face hub: safetensors, code, processor, tokenizer, model card.

    python tvtsv2/publish.py outputs/pretrain your-name/tvtsv2-tiny --license apache-2.0 --datasets none \
        --training "Trained from scratch on the generated corpus of narrated shapes."
    python tvtsv2/publish.py outputs/b16 your-name/tvtsv2-b16 --license other --rights "…" \
        --results outputs/benchmarks --push --private

The folder is written under the model's name (or --output_dir), whole or not at all; --push then uploads it. The sorter
of pre-training is left out; no pickled file gets in.
"""

import argparse
import json
import sys
from pathlib import Path

from processing.atomic_files import whole_folder

TEMPLATE = Path(__file__).parent / "model_card.md"
PIPELINE_TAG = "zero-shot-video-classification"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
RIGHTS_UNKNOWN = (
    "Nothing was stated about the rights in these weights when they were exported: ask before you use them."
)


def make_parser() -> argparse.ArgumentParser:
    """Returns the command line's parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="folder of a model with its processor")
    parser.add_argument("repo_id", help="name on the hub: your-name/model-name")
    parser.add_argument("--output_dir", help="folder to write (default: the name, below the current folder)")
    parser.add_argument("--license", required=True, help="of the weights, as the hub names it: apache-2.0, other, …")
    parser.add_argument("--rights", default=RIGHTS_UNKNOWN, help="a sentence on who may do what with the weights")
    parser.add_argument("--datasets", nargs="*", default=[], help="hub names of the data sets trained on")
    parser.add_argument("--language", nargs="*", default=["en"], help="of the texts trained on (en)")
    parser.add_argument("--base_model", help="hub name of the CLIP that training started from")
    parser.add_argument("--training", default="Not documented.", help="sentences on data and recipe")
    parser.add_argument("--results", help="folder of benchmark records (record.json), for the card and its model-index")
    parser.add_argument("--push", action="store_true", help="upload to the hub (log in before: hf auth login)")
    parser.add_argument("--private", action="store_true", help="with --push: visible to you alone")
    return parser


def main(command_line: list[str] | None = None) -> None:
    """Runs the export; `command_line` None: this process's."""
    arguments = make_parser().parse_args(command_line)
    try:
        folder = export(arguments)
        print(f"written to {folder}")
        if arguments.push:
            print(f"uploaded to {push(folder, arguments.repo_id, private=arguments.private)}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def export(arguments: argparse.Namespace) -> Path:
    """Writes the folder and returns it.

    Raises:
        ValueError: the name is none, the target is taken, the checkpoint is incomplete, or a record is unusable.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(arguments.repo_id)
    except HFValidationError as error:
        raise ValueError(str(error)) from error
    folder = Path(arguments.output_dir or arguments.repo_id)
    results = read_results(arguments.results) if arguments.results else []
    with whole_folder(folder) as temporary:
        model, processor = _save_model(arguments.checkpoint, temporary)
        card = make_card(model, processor, arguments, results)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        pickled = [path.name for path in temporary.rglob("*") if path.suffix in PICKLED]
        assert not pickled, f"a pickled file got in: {pickled}"
    return folder


def _save_model(checkpoint: str, folder: Path):
    """Saves model and processor of a checkpoint and returns them."""
    from modeling_tvtsv2 import TVTSv2Model
    from processing import TVTSv2Processor

    if not (Path(checkpoint) / "config.json").is_file():
        raise ValueError(f"{checkpoint} holds no config.json, so it is no checkpoint of a model.")
    # Tensors of other shapes are reported with the rest, and refused.
    model, report = TVTSv2Model.from_pretrained(
        checkpoint, use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True
    )
    problems = {kind: sorted(map(str, names))[:5] for kind, names in report.items() if names}
    if problems:
        raise ValueError(f"The weights of {checkpoint} do not fit the model: {problems}.")
    try:
        processor = TVTSv2Processor.from_pretrained(checkpoint)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{checkpoint} has no complete processor: {error}") from error
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def read_results(folder: str | Path) -> list[dict]:
    """Returns the benchmark records below a folder: those of whole splits, with their file's name.

    Raises:
        ValueError: there are none, one is broken, or one covers only a part of its videos.
    """
    results = []
    for file in sorted(Path(folder).rglob("record.json")):
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            state, metrics = record["state"], dict(_flatten(record["metrics"]))
            record = {key: record[key] for key in ("protocol", "data", "split", "command", "device")}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is no benchmark record ({error!r}).") from error
        if state != "complete":
            raise ValueError(f"{file} is {state!r}: not all videos of the split were evaluated. Leave it out.")
        results.append(record | {"metrics": metrics})
    if not results:
        raise ValueError(f"{folder} holds no record.json of a benchmark.")
    return results


def _flatten(metrics: dict, prefix: str = ""):
    """Yield (name, value) of nested metrics; a metric is a mapping with a "value"."""
    for name, metric in metrics.items():
        if isinstance(metric, dict) and "value" in metric:
            yield f"{prefix}{name}", float(metric["value"])
        elif isinstance(metric, dict):
            yield from _flatten(metric, f"{prefix}{name} ")


def make_card(model, processor, arguments: argparse.Namespace, results: list[dict]) -> str:
    """Returns the model card, metadata and text."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = arguments.repo_id.rpartition("/")[2]
    evaluated = [
        EvalResult(
            task_type=record["protocol"],
            dataset_type=record["data"],
            dataset_name=record["data"],
            dataset_split=None if record["split"] is None else str(record["split"]),
            metric_type=metric,
            metric_value=value,
        )
        for record in results
        for metric, value in record["metrics"].items()
    ]
    data = ModelCardData(
        license=arguments.license,
        language=arguments.language,
        library_name="transformers",
        pipeline_tag=PIPELINE_TAG,
        tags=["video", "video-text-retrieval", "video-feature-extraction", "custom_code"],
        datasets=[dataset for dataset in arguments.datasets if dataset != "none"] or None,
        base_model=arguments.base_model,
        model_name=name if evaluated else None,
        eval_results=evaluated or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        name=name,
        repo_id=arguments.repo_id,
        description=f"It started from `{arguments.base_model}`." if arguments.base_model else "",
        projection_dim=model.config.projection_dim,
        vision=model.config.vision_config,
        text=model.config.text_config,
        video_processor=processor.video_processor,
        num_parameters=f"{model.num_parameters():,}",
        training=arguments.training,
        results=_results_table(results),
        rights=arguments.rights,
    )
    return card.content


def _results_table(results: list[dict]) -> str:
    if not results:
        return "None were recorded."
    lines = ["| benchmark | metric | value | command, device |", "|---|---|---|---|"]
    for record in results:
        split = "" if record["split"] is None else f", split {record['split']}"
        for metric, value in record["metrics"].items():
            origin = f"`{record['command']}`, {record['device']}"
            lines.append(f"| {record['protocol']} {record['data']}{split} | {metric} | {value:g} | {origin} |")
    return "\n".join(lines)


def push(folder: Path, repo_id: str, *, private: bool) -> str:
    """Uploads the folder as one commit and returns its address.

    Raises:
        OSError: the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    commit = api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message="Model, processor, code and card")
    return commit.commit_url


if __name__ == "__main__":
    main()
