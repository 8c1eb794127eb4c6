"""What a study is run with: a YAML file, every key of it known and checked."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class WorldSettings:
    """What is drawn, and how much of it.

    colors, shapes, motions, scenes: names of `training.scene_drawing`. test_ratio: of their combinations.
    image_size: pixels. frames_per_event: stored. num_transcripts: events of a narrated video.
    """

    colors: list[str]
    shapes: list[str]
    motions: list[str]
    scenes: list[str]
    test_ratio: float
    image_size: int
    frames_per_event: int
    num_transcripts: int
    num_images: int
    num_narrated: int
    num_captioned: int
    num_test: int
    num_probe: int


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of both towers. num_frames: of a video; temporal_initializer_range: of the new temporal embedding."""

    width: int
    patch_size: int
    num_frames: int
    num_text_layers: int
    num_vision_layers: int
    temporal_initializer_range: float


@dataclass(frozen=True)
class ClipSettings:
    """Pre-training of the image foundation model."""

    num_steps: int
    batch_size: int
    learning_rate: float
    num_warmup_steps: int


@dataclass(frozen=True)
class PostSettings:
    """Post-pretraining. new_rate: of what CLIP has not; clip_rate: of what came from CLIP."""

    num_steps: int
    batch_size: int
    new_rate: float
    clip_rate: float
    weight_decay: float
    mask_ratio: float
    num_warmup_steps: int


@dataclass(frozen=True)
class Study:
    """A whole study. The claims' own settings are mappings that their modules read."""

    name: str
    seeds: list[int]
    world: WorldSettings
    model: ModelSettings
    clip: ClipSettings
    post: PostSettings
    claims: dict[str, dict] = field(default_factory=dict)


def read_study(path: str | Path) -> Study:
    """The study a YAML file states.

    Raises:
        ValueError: a key is missing or unknown.
    """
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    try:
        return _build(Study, content, "")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _build(kind: type, content: Any, place: str) -> Any:
    if not isinstance(content, dict):
        raise ValueError(f"{place or 'the file'} must be a mapping, got {content!r}.")
    known = {each.name: each.type for each in fields(kind)}
    unknown, missing = sorted(content.keys() - known), sorted(known.keys() - content)
    if unknown or missing:
        raise ValueError(f"{place or 'the file'} has unknown keys {unknown} and lacks {missing}.")
    parts = {name: content[name] for name in known}
    return kind(
        **{
            name: _build(part, parts[name], name) if is_dataclass(part) else _number(part, parts[name], name)
            for name, part in known.items()
        }
    )


def _number(kind: Any, value: Any, name: str) -> Any:
    if kind in (int, float):
        try:
            return kind(value)  # YAML reads 1e-4, without a point, as a string
        except (TypeError, ValueError):
            raise ValueError(f"{name} must be a number, got {value!r}.") from None
    return value
