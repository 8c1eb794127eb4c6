"""What a study is run with: a YAML file, every key of it known and checked."""

from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml

SOURCES = ("narrated", "captioned", "ordered")


@dataclass(frozen=True)
class VideoSettings:
    """How much is drawn, and how large.

    image_size: pixels. num_frames: of a clip, a multiple of 4. num_stills: mini-CLIP's pictures; num_narrated,
    num_captioned: post-pretraining's clips; num_probe: what linear probes are trained on. chatter_ratio: of the
    transcripts in training, which say nothing of what is seen.
    """

    image_size: int
    num_frames: int
    num_stills: int
    num_narrated: int
    num_captioned: int
    num_probe: int
    chatter_ratio: float


@dataclass(frozen=True)
class ModelSettings:
    """Sizes of both towers; width: of each and of the shared space."""

    width: int
    patch_size: int
    num_text_layers: int
    num_vision_layers: int


@dataclass(frozen=True)
class ClipSettings:
    """Pre-training of the image foundation model; the rate warms up and falls as a cosine."""

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    num_warmup_steps: int


@dataclass(frozen=True)
class PostSettings:
    """Post-pretraining.

    new_rate: of what CLIP has not; clip_rate: of what came from CLIP; both stay after warm-up.
    temporal_initializer_range: see TVTSv2VisionConfig.
    """

    batch_size: int
    new_rate: float
    clip_rate: float
    weight_decay: float
    num_warmup_steps: int
    temporal_initializer_range: float


@dataclass(frozen=True)
class Arm:
    """One way to post-pretrain; the defaults are the paper's recipe.

    name: in tables. trains: False is mini-CLIP as it was. num_tuned_blocks: of the text tower, the last ones.
    tunes_rest_of_text: its embeddings, final norm and projection too, as in the release. sources: which batches take
    turns. sorts: with the sorting loss. stop_gradient: the sorting loss leaves the text tower alone.
    random_time_attention: starts it with `temporal_attention_init="identity"` (see `models.start_from_clip`).
    mask_ratio: of patches. width: instead of the model settings'. contrastive_loss_weight: 1 is the gradient of the
    joined batch; the release trains with 1 / W on W processes. adam_epsilon: PyTorch's; the release has 1e-6.
    """

    name: str
    trains: bool = True
    num_tuned_blocks: int = 1
    tunes_rest_of_text: bool = True
    sources: list[str] = field(default_factory=lambda: ["narrated"])
    sorts: bool = True
    stop_gradient: bool = True
    random_time_attention: bool = False
    mask_ratio: float = 0.5
    width: int | None = None
    contrastive_loss_weight: float = 1.0
    adam_epsilon: float = 1e-8

    def __post_init__(self):
        unknown = sorted(set(self.sources) - set(SOURCES))
        if unknown or not self.sources:
            raise ValueError(f"sources of arm {self.name!r} must be some of {SOURCES}, got {self.sources}.")


@dataclass(frozen=True)
class Claim:
    """What is compared. num_steps: of post-pretraining. comparisons: name -> arms, the reference first."""

    num_steps: int
    arms: list[Arm]
    comparisons: dict[str, list[str]]

    def __post_init__(self):
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"Two arms have one name: {names}.")
        for comparison, shown in self.comparisons.items():
            unknown = [name for name in shown if name not in names]
            if unknown or not shown:
                raise ValueError(f"Comparison {comparison!r} shows arms {unknown or shown}, there are {names}.")


@dataclass(frozen=True)
class Study:
    """A whole study."""

    name: str
    seeds: list[int]
    videos: VideoSettings
    model: ModelSettings
    clip: ClipSettings
    post: PostSettings
    claims: dict[str, Claim]


def read_study(path: str | Path) -> Study:
    """The study a YAML file states.

    Raises:
        ValueError: no YAML mapping, a key is missing or unknown, or a value is of the wrong kind.
    """
    try:
        return _build(Study, yaml.safe_load(Path(path).read_text(encoding="utf-8")), "the file")
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _build(kind: Any, value: Any, place: str) -> Any:
    """`value`, as YAML reads it, as a `kind`."""
    if is_dataclass(kind):
        return _build_dataclass(kind, value, place)
    if get_origin(kind) is list:
        if not isinstance(value, list):
            raise ValueError(f"{place} must be a list, got {value!r}.")
        return [_build(get_args(kind)[0], each, f"{place}[{number}]") for number, each in enumerate(value)]
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{place} must be a mapping, got {value!r}.")
        return {name: _build(get_args(kind)[1], each, f"{place}.{name}") for name, each in value.items()}
    allowed = get_args(kind) or (kind,)
    if float in allowed and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-4, without a point, as a string
        except ValueError:
            raise ValueError(f"{place} must be a number, got {value!r}.") from None
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        raise ValueError(f"{place} must be {' or '.join(each.__name__ for each in allowed)}, got {value!r}.")
    return value


def _build_dataclass(kind: type, content: Any, place: str) -> Any:
    if not isinstance(content, dict):
        raise ValueError(f"{place} must be a mapping, got {content!r}.")
    known = {each.name: each for each in fields(kind)}
    needed = {name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
    unknown, missing = sorted(content.keys() - known), sorted(needed - content.keys())
    if unknown or missing:
        raise ValueError(f"{place} has unknown keys {unknown} and lacks {missing}.")
    return kind(**{name: _build(known[name].type, value, f"{place}.{name}") for name, value in content.items()})
