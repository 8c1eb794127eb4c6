"""`tvtsv2 publish`: a checkpoint to a folder for the Hugging Face hub, and to the hub."""

import argparse
import json
import re
from pathlib import Path

from tvtsv2.errors import ArgumentError

HELP = "a checkpoint -> a folder for the hub, and upload"
DESCRIPTION = """\
Write a folder for the Hugging Face hub: safetensors, code, processor, tokenizer, reference embeddings, model card.

  tvtsv2 publish outputs/pretrain your-name/tvtsv2-tiny --license apache-2.0 \\
      --training "Trained from scratch on the generated corpus of narrated shapes."
  tvtsv2 publish outputs/b16 your-name/tvtsv2-b16 --license other --rights "…" \\
      --results outputs/benchmarks --push --private
  tvtsv2 publish outputs/actions your-name/actions --license cc-by-nc-4.0      # a fine-tuned classifier

The folder is written under the model's name (or --output_dir), whole or not at all; --push then uploads it. The sorter
of pre-training is left out; no pickled file gets in."""

TEMPLATE = Path(__file__).parent / "model_card.md"
# The hub's identifiers: https://huggingface.co/docs/hub/repositories-licenses, without those of other models.
LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m
    bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0
    cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0
    cdla-sharing-1.0 creativeml-openrail-m ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
    fair-noncommercial-research-license gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1
    lgpl-3.0 lgpl-lr lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0
    other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)
RIGHTS_UNKNOWN = "Nothing is known about the rights in these weights: ask the publisher before you use them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("checkpoint", help="folder of a model with its processor")
    parser.add_argument("repo_id", help="name on the hub: your-name/model-name")
    parser.add_argument("--output_dir", help="folder to write (default: the name, below the current folder)")
    parser.add_argument("--license", required=True, help="of the weights, as the hub names it: apache-2.0, other, …")
    parser.add_argument("--rights", help="a sentence on who may do what with the weights")
    parser.add_argument("--datasets", nargs="*", default=[], help="hub names of the datasets trained on")
    parser.add_argument("--language", nargs="*", default=["en"], help="of the texts trained on (en)")
    parser.add_argument("--base_model", help="hub name of the CLIP that training started from")
    parser.add_argument("--training", default="Not documented.", help="sentences on data and recipe")
    parser.add_argument("--results", help="folder of benchmark records (record.json), for the card and its model-index")
    parser.add_argument("--push", action="store_true", help="upload to the hub (log in before: hf auth login)")
    parser.add_argument("--private", action="store_true", help="with --push: visible to you alone")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_hub_name(arguments.repo_id)
    check_rights(arguments)
    folder = write_folder(arguments)
    print(f"written to {folder}")
    if arguments.push:
        from huggingface_hub import HfApi

        api = HfApi()
        repo_id = api.create_repo(arguments.repo_id, private=arguments.private, exist_ok=True).repo_id
        message = "Model, processor, code and card"
        commit = api.upload_folder(folder_path=folder, repo_id=repo_id, commit_message=message)
        print(f"uploaded to {commit.commit_url}")
    return 0


def check_rights(arguments: argparse.Namespace) -> None:
    """Raise an error for a license that the hub does not list, or that needs words of its own."""
    if arguments.license not in LICENSES:
        import difflib

        similar = difflib.get_close_matches(arguments.license.lower(), sorted(LICENSES), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(similar)}? " if similar else ""
        raise ArgumentError(
            f"--license {arguments.license!r} is not among the hub's identifiers; {hint}Give 'other' and say in "
            "--rights what holds, if none fits."
        )
    if arguments.license == "other" and not (arguments.rights or "").strip():
        raise ArgumentError("--license other needs --rights: a sentence on who may do what with the weights.")
    for name in arguments.language:
        if not re.fullmatch("[a-z]{2,3}|multilingual|code", name):
            raise ArgumentError(f"--language takes codes such as en or deu, or multilingual, got {name!r}.")
    for name in (*arguments.datasets, *([arguments.base_model] if arguments.base_model else [])):
        check_hub_name(name)
    if arguments.private and not arguments.push:
        raise ArgumentError("--private has no effect without --push.")


def check_hub_name(name: str) -> None:
    """Raise an `ArgumentError` for what can be no name on the hub."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ArgumentError(str(error)) from error


def write_folder(arguments: argparse.Namespace) -> Path:
    """Write the folder and return it.

    Raises:
        ValueError: the target is taken, the checkpoint is incomplete, or a record is unusable.
    """
    from modeling_tvtsv2 import TVTSv2ForVideoClassification, TVTSv2Model
    from processing.atomic_files import whole_folder
    from tvtsv2.models.model_loading import check_finite, is_classifier, load_config, load_processor, load_strictly
    from tvtsv2.verify import write_reference

    checkpoint, folder = arguments.checkpoint, Path(arguments.output_dir or arguments.repo_id)
    results = read_results(arguments.results) if arguments.results else []
    with whole_folder(folder) as temporary:
        model_class = TVTSv2ForVideoClassification if is_classifier(load_config(checkpoint)) else TVTSv2Model
        model, processor = check_finite(load_strictly(model_class, checkpoint), checkpoint), load_processor(checkpoint)
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        card = make_card(model, processor, arguments, results)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        write_reference(temporary)
    return folder


def read_results(folder: str | Path) -> list[dict]:
    """Return the benchmark records below a folder: those of whole splits, with their file's name.

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
    """Return the model card, metadata and text."""
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    name = arguments.repo_id.rpartition("/")[2]
    is_classifier = hasattr(model, "classifier")
    tasks = [] if is_classifier else ["video-text-retrieval", "video-feature-extraction"]
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
        pipeline_tag="video-classification" if is_classifier else "zero-shot-video-classification",
        tags=["video", *tasks, "custom_code"],
        datasets=[dataset for dataset in arguments.datasets if dataset != "none"] or None,
        base_model=arguments.base_model,
        model_name=name if evaluated else None,
        eval_results=evaluated or None,
    )
    is_known = arguments.license != "unknown"
    rights = f"The weights are published under `{arguments.license}`." if is_known else RIGHTS_UNKNOWN
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
        labels=list(model.config.id2label.values()) if is_classifier else None,
        rights=arguments.rights or rights,
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
