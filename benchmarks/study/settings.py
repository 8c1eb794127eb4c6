"""What a study is run with: a YAML file, every key of it known and checked."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError

SOURCES = ("narrated", "captioned", "ordered")


@strict
@dataclass
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


@strict
@dataclass
class ModelSettings:
    """Sizes of both towers; width: of each and of the shared space."""

    width: int
    patch_size: int
    num_text_layers: int
    num_vision_layers: int


@strict
@dataclass
class ClipSettings:
    """Pre-training of the image foundation model; the rate warms up and falls as a cosine."""

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    num_warmup_steps: int


@strict
@dataclass
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


@strict
@dataclass
class Arm:
    """One way to post-pretrain; the defaults are the paper's recipe.

    name: in tables. trains: False is mini-CLIP as it was. num_tuned_blocks: of the text tower, the last ones.
    tunes_rest_of_text: its embeddings, final norm and projection too, as in the release. sources: which batches take
    turns. sorts: with the sorting loss. stop_gradient: the sorting loss leaves the text tower alone.
    random_time_attention: starts it with `temporal_attention_init="identity"` (see `models.start_from_clip`).
    mask_ratio: of patches. contrastive_loss_weight: 1 is the gradient of the joined batch; the release trains with
    1 / W on W processes. adam_epsilon: PyTorch's; the release has 1e-6.
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
    contrastive_loss_weight: float = 1.0
    adam_epsilon: float = 1e-8

    def __post_init__(self):
        unknown = sorted(set(self.sources) - set(SOURCES))
        if unknown or not self.sources:
            raise ValueError(f"sources of arm {self.name!r} must be some of {SOURCES}, got {self.sources}.")


@strict
@dataclass
class Study:
    """A whole study. num_steps: of post-pretraining. arms: what is compared, the reference first."""

    name: str
    seeds: list[int]
    videos: VideoSettings
    model: ModelSettings
    clip: ClipSettings
    post: PostSettings
    num_steps: int
    arms: list[Arm]

    def __post_init__(self):
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"A study needs arms, each with a name of its own, got {names}.")


PARTS = {"videos": VideoSettings, "model": ModelSettings, "clip": ClipSettings, "post": PostSettings}


def read_study(path: str | Path) -> Study:
    """Return the study that a YAML file states.

    Raises:
        ValueError: no YAML mapping, a key is missing or unknown, or a value is of the wrong type.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        parts = {name: kind(**content[name]) for name, kind in PARTS.items()}
        return Study(**content | parts | {"arms": [Arm(**arm) for arm in content["arms"]]})
    except (AttributeError, KeyError, TypeError, ValueError, StrictDataclassError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error
