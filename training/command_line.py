"""The command line of a pre-training run: defaults, YAML files, options, and the check of them all."""

import dataclasses
import difflib
import functools
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from training.arguments import DEFAULT_CONFIG, DataArguments, ModelArguments, PlanArguments, PreTrainingArguments
from training.pretraining_setup import check_arguments
from training.video_arguments import SettingsParser

ArgumentGroups = tuple[ModelArguments, DataArguments, PreTrainingArguments, PlanArguments]


def read_config(path: str | Path) -> dict:
    """Return the settings of a YAML file; a plan is asked for on the command line only.

    Raises:
        ValueError: not a mapping, unknown keys (near misses are shown), or values of another type.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The configuration {path} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"The configuration {path} must hold settings by name, got a {type(settings).__name__}.")
    for key in settings:
        if key not in _setting_types():
            raise ValueError(f"The configuration {path} has an unknown key {key!r}; {_hint(str(key))}")
    # YAML reads a bare no as false.
    settings = {key: "no" if value is False and key.endswith("_strategy") else value for key, value in settings.items()}
    for key, value in settings.items():
        if not _has_type(value, annotation := _setting_types()[key]):
            kind = inspect.formatannotation(annotation)
            raise ValueError(f"The configuration {path} has {key}: {value!r}, which is no {kind}.")
    return settings


def _has_type(value: object, annotation: Any) -> bool:
    """Return whether a value of YAML is one of a setting's types, or text, which the parser converts."""
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    kinds = [typing.get_origin(kind) or kind for kind in (typing.get_args(annotation) if is_union else [annotation])]
    if isinstance(value, str):
        return str in kinds or list not in kinds
    return type(value) in kinds or (type(value) is int and float in kinds)


@functools.cache
def _setting_types() -> dict[str, Any]:
    # Not the fields' own types, which the parser changes.
    return {
        item.name: hints[item.name]
        for group in ArgumentGroups.__args__[:3]
        for hints in [typing.get_type_hints(group)]
        for item in dataclasses.fields(group)
        if item.init
    }


def _hint(name: str) -> str:
    near = difflib.get_close_matches(name, _setting_types(), n=3)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else "see run_pretrain.py --help."


def parse_arguments(command_line: list[str] | None = None) -> ArgumentGroups:
    """Return model, data, training and plan arguments: defaults, overridden by YAML, overridden by the command line.

    Wrong ones end the process with one line and exit code 2, before any file but the YAML is opened.

    Args:
        command_line: `[config.yaml …] [--name value …]`; None: this process's. Later YAML files win over earlier ones.
            Without any, configs/tiny.yaml.
    """
    parser = SettingsParser(
        ArgumentGroups.__args__,
        prog="accelerate launch training/run_pretrain.py",
        description="Pre-train a TVTSv2. With no arguments: a small one on a generated corpus, in minutes, on a CPU.",
    )
    parser.add_argument("config", nargs="*", help="YAML files with any of these settings; later ones win.")
    known, unknown = parser.parse_known_args(command_line)
    # Looked for first: the value behind an unknown option would be taken for the YAML file.
    for option in (word.partition("=")[0] for word in unknown if word.startswith("--")):
        parser.error(f"There is no option {option}; {_hint(option.lstrip('-'))}")
    try:
        for path in known.config or [DEFAULT_CONFIG]:
            parser.set_defaults(**read_config(path))
        *groups, _ = parser.parse_args_into_dataclasses(args=command_line)
        has_evaluation = not groups[1].sources or groups[1].eval_source is not None
        groups[2].check_typed(sys.argv[1:] if command_line is None else command_line, has_evaluation)
        check_arguments(*groups[:3])
    # An ImportError: settings of a library that is missing, such as DeepSpeed. A TypeError: unknown names in JSON.
    except (ValueError, ImportError, OSError, TypeError) as error:
        parser.error(str(error))
    return tuple(groups)
