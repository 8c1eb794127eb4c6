"""Configurations of TVTSv2 models: the architecture and how new weights start."""

import functools

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPTextConfig, CLIPVisionConfig
from transformers.configuration_utils import PreTrainedConfig

# Sources: paper, section 4.1; the released configurations. `tiny` is ours: a small model that learns to sort the
# generated corpus on two CPU cores. It is trained from scratch, hence the wide temporal embedding: at the usual
# standard deviation of 0.02 to 0.04 sorting stays at chance for thousands of steps. A patch is a quarter of a frame:
# from patches of 16 pixels, so small a tower does not learn shape and motion in the steps of this run.
_PRESETS: dict[str, dict] = {
    "b32": {"text_config": {}, "vision_config": {}},  # the defaults
    "b16": {"text_config": {}, "vision_config": {"patch_size": 16}},
    "h14": {
        "text_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "projection_dim": 1024,
        },
        "vision_config": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "hidden_act": "gelu",
            "projection_dim": 1024,
            "post_layernorm_scope": "pooled",
        },
        "projection_dim": 1024,
        "sorter_num_attention_heads": 16,
        "sorter_uses_class_token": False,
    },
    "tiny": {
        "text_config": {
            "vocab_size": 512,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "projection_dim": 128,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
        },
        "vision_config": {
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 32,
            "projection_dim": 128,
            "temporal_initializer_range": 1.5,
        },
        "projection_dim": 128,
        "sorter_num_attention_heads": 4,
    },
}


def _strict(config_class: type) -> type:
    """Apply `strict`, as transformers' configurations do, and raise its errors as ValueErrors of one sentence."""
    config_class = strict(config_class)
    strict_init = config_class.__init__  # type: ignore[misc]

    @functools.wraps(strict_init)
    def init(self, *args, **kwargs):
        try:
            strict_init(self, *args, **kwargs)
        except StrictDataclassError as error:
            raise ValueError(f"{type(self).__name__}: {error.__cause__}") from error

    config_class.__init__ = init  # type: ignore[misc]
    return config_class


@_strict
class TVTSv2TextConfig(CLIPTextConfig):
    """The text tower: CLIP's fields and defaults; `eos_token_id` is always the id of the token that is pooled."""

    model_type = "tvtsv2_text_model"
    base_config_key = "text_config"


@_strict
class TVTSv2VisionConfig(CLIPVisionConfig):
    """The video tower: CLIP's fields and defaults, and the fields of its temporal parts.

    num_frames (`int`, defaults to 12):
        Rows of the temporal embedding: the largest number of frames of a video without interpolation.
    post_layernorm_scope (`"all"` or `"pooled"`, defaults to `"all"`):
        Tokens that the final layer norm runs over: all (B family) or the class token alone (H family, whose sorter
        receives patch tokens without that norm). Source: released code.
    temporal_initializer_range (`float`, defaults to 0.02):
        Standard deviation of a new temporal embedding. The released code starts at hidden_size**-0.5.
    temporal_attention_init (`"released"` or `"identity"`, defaults to `"released"`):
        Start of new time attention. Both add zero to every token, so that a model started from CLIP computes what CLIP
        computes. `"released"`: zero query, key and value projections and an output weight of ones, where queries and
        keys never receive a gradient (paper, section 3.1; released code). `"identity"`: queries, keys and values as in
        CLIP's other attentions and a zero output projection, where all parameters learn.
    """

    model_type = "tvtsv2_vision_model"
    base_config_key = "vision_config"

    num_frames: int = 12
    post_layernorm_scope: str = "all"
    temporal_initializer_range: float = 0.02
    temporal_attention_init: str = "released"

    def validate_architecture(self):
        """Raise `ValueError` for fields that cannot make a model."""
        super().validate_architecture()
        if not isinstance(self.image_size, int) or not isinstance(self.patch_size, int):
            raise ValueError(
                f"image_size and patch_size must be single integers (square images and patches), got "
                f"{self.image_size!r} and {self.patch_size!r}."
            )
        if self.patch_size < 1 or self.image_size < self.patch_size:
            raise ValueError(f"patch_size must lie in 1..image_size={self.image_size}, got {self.patch_size}.")
        if self.num_frames < 1:
            raise ValueError(f"num_frames must be at least 1, got {self.num_frames}.")
        if self.post_layernorm_scope not in ("all", "pooled"):
            raise ValueError(
                f'post_layernorm_scope must be "all" (B family) or "pooled" (H family), got '
                f"{self.post_layernorm_scope!r}."
            )
        if self.temporal_attention_init not in ("released", "identity"):
            raise ValueError(
                f'temporal_attention_init must be "released" or "identity", got {self.temporal_attention_init!r}.'
            )

    @property
    def num_patches(self) -> int:
        """Patches per frame."""
        return (self.image_size // self.patch_size) ** 2


@_strict
class TVTSv2Config(PreTrainedConfig):
    """A TVTSv2 model: two towers, their common space, and the transcript sorter of pre-training.

    text_config, vision_config (`dict` or config, *optional*):
        The towers; defaults are those of B/32.
    projection_dim (`int`, defaults to 512):
        Width of the common embedding space, and of the sorter.
    contrastive_temperature (`float`, defaults to 0.05):
        Cosine similarities are divided by it. Source: paper, section 3.3; constant in the released code, not learned.
    num_transcripts (`int`, defaults to 4):
        K, the number of transcripts per video that the sorter orders, and its number of classes.
    sorter_num_hidden_layers, sorter_num_attention_heads (`int`, default to 2 and 8):
        Depth and heads of the sorter.
    sorter_uses_class_token (`bool`, defaults to `True`):
        Whether the sorter receives the class token besides the patch tokens (B family) or not (H family).
    sorting_loss_weight (`float`, defaults to 2.0):
        Weight of the sorting loss in the sum. Source: released code.
    initializer_range (`float`, defaults to 0.02):
        Standard deviation of the weights of a new sorter's linear layers.
    sorter_init (`"normal"` or `"released"`, defaults to `"normal"`):
        Start of a new sorter's linear layers: normal weights and zero biases, or PyTorch's default for linear layers
        (uniform within in_features**-0.5, biases too), as in the released code.
    """

    model_type = "tvtsv2"
    keys_to_ignore_at_inference = ["past_key_values", "text_model_output", "vision_model_output"]
    sub_configs_defaults = {"text_config": TVTSv2TextConfig, "vision_config": TVTSv2VisionConfig}

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    projection_dim: int = 512
    contrastive_temperature: float = 0.05
    num_transcripts: int = 4
    sorter_num_hidden_layers: int = 2
    sorter_num_attention_heads: int = 8
    sorter_uses_class_token: bool = True
    sorting_loss_weight: float = 2.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    sorter_init: str = "normal"

    def validate_architecture(self):
        """Raise `ValueError` for fields that cannot make a model."""
        if self.projection_dim % self.sorter_num_attention_heads != 0:
            raise ValueError(
                f"projection_dim ({self.projection_dim}), the sorter's width, must be a multiple of "
                f"sorter_num_attention_heads ({self.sorter_num_attention_heads})."
            )
        if self.contrastive_temperature <= 0:
            raise ValueError(f"contrastive_temperature must be positive, got {self.contrastive_temperature}.")
        for name in ("num_transcripts", "sorter_num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.sorter_init not in ("normal", "released"):
            raise ValueError(f'sorter_init must be "normal" or "released", got {self.sorter_init!r}.')

    @property
    def num_frames(self) -> int:
        """The largest number of frames of a video without interpolation; read by transformers' video pipelines."""
        return self.vision_config.num_frames

    @num_frames.setter
    def num_frames(self, value: int) -> None:
        # For what loads a processor by way of the configuration: AutoProcessor.from_pretrained(folder, num_frames=8).
        self.vision_config.num_frames = value

    @classmethod
    def from_preset(cls, name: str, **overrides) -> "TVTSv2Config":
        """Return the configuration of one of the published sizes, or of the small model of the default run.

        Args:
            name (`str`): `"b32"`, `"b16"`, `"h14"` (paper, Table 1) or `"tiny"`.
            overrides: fields of the whole configuration that replace the preset's; `text_config` and `vision_config`
                given as dicts are merged into the preset's towers.

        Raises:
            ValueError: there is no preset of this name.
        """
        if name not in _PRESETS:
            raise ValueError(f"There is no preset {name!r}; choose one of {', '.join(map(repr, _PRESETS))}.")
        fields = {**_PRESETS[name], **overrides}
        for tower in ("text_config", "vision_config"):
            if isinstance(fields[tower], dict):
                fields[tower] = {**_PRESETS[name][tower], **fields[tower]}
        return cls(**fields)


for _config in (TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig):
    _config.register_for_auto_class("AutoConfig")

__all__ = ["TVTSv2Config", "TVTSv2TextConfig", "TVTSv2VisionConfig"]
