"""The two towers, and what all TVTSv2 models share: loading, saving, initialization, checking of arguments.

Axes: B videos or texts, T frames, N patches per frame (after masking), L text tokens, D width.

Attribute names are CLIP's wherever CLIP has the part, so that a CLIP checkpoint loads without conversion.
"""

import copy
import inspect

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPPreTrainedModel, CLIPTextModel
from transformers.utils import logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tvtsv2 import TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig
from .outputs_tvtsv2 import TVTSv2VisionModelOutput
from .transcript_sorter_tvtsv2 import init_sorter_weights
from .video_embeddings_tvtsv2 import TVTSv2VideoEmbeddings, init_embedding_weights, kept_patch_indices
from .video_encoder_tvtsv2 import TVTSv2VideoEncoder, TVTSv2VideoLayer, init_time_attention

logger = logging.get_logger(__name__)

_AUTO_MAP = {
    "AutoConfig": "configuration_tvtsv2.TVTSv2Config",
    "AutoModel": "modeling_tvtsv2.TVTSv2Model",
    "AutoModelForPreTraining": "modeling_tvtsv2.TVTSv2ForPreTraining",
    "AutoModelForVideoClassification": "modeling_tvtsv2.TVTSv2ForVideoClassification",
}

# What transformers' decorators, Trainer and pipelines pass to any model. What a model does not read itself is consumed
# by the decorators, or has no meaning for these models.
_ARGUMENTS_OF_TRANSFORMERS = {
    "is_causal",
    "num_items_in_batch",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_cache",
}
_UNSET_ARGUMENTS_OF_PEFT = {"attention_mask", "input_ids", "inputs_embeds", "labels"}  # accepted as None


class TVTSv2PreTrainedModel(CLIPPreTrainedModel):
    """Loading, saving and initialization shared by all TVTSv2 models."""

    config_class = TVTSv2Config
    base_model_prefix = ""
    input_modalities: tuple[str, ...] = ("video", "text")
    # The losses are means over the batch and do not use Trainer's `num_items_in_batch`: Trainer divides them itself.
    accepts_loss_kwargs = False
    _no_split_modules = ["TVTSv2VideoEmbeddings", "TVTSv2VideoLayer", "TVTSv2SorterLayer"]
    _can_record_outputs = {"hidden_states": TVTSv2VideoLayer}
    # CLIP's learned temperature, and an index buffer of old CLIP checkpoints: neither is a weight of these models.
    _keys_to_ignore_on_load_unexpected = [r"^logit_scale$", r"position_ids$"]

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # For remote code, transformers skips modules without parameters of their own, in case `_init_weights` would
        # overwrite loaded weights. It does not (transformers.initialization), and CLIP's attention is such a module.
        super()._initialize_weights(module)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        factor = self.config.initializer_factor
        init_embedding_weights(module, std=0.02 * factor)
        init_time_attention(module)
        init_sorter_weights(module)
        for name in ("text_projection", "visual_projection"):
            projection = module._modules.get(name)
            if projection is not None:
                init.normal_(projection.weight, std=factor * projection.in_features**-0.5)

    def _refuse_unknown_arguments(self, arguments: dict) -> None:
        """Raise `TypeError`, as Python does, for a name in forward's `**kwargs` that nothing uses."""
        unknown = [
            name
            for name, value in arguments.items()
            if name not in _ARGUMENTS_OF_TRANSFORMERS and not (name in _UNSET_ARGUMENTS_OF_PEFT and value is None)
        ]
        if unknown:
            known = [name for name in inspect.signature(self.forward).parameters if name != "kwargs"]
            raise TypeError(
                f"{type(self).__name__}.forward() got unexpected arguments {', '.join(map(repr, unknown))}; it takes "
                f"{', '.join(known)}."
            )

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict | None = None, **kwargs) -> None:
        """Enable it as transformers does, reentrant also for adapters in blocks behind frozen embeddings of videos."""
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)
        # transformers does this for models whose main input is text.
        if self.main_input_name != "input_ids" and (activation_checkpointing_kwargs or {}).get("use_reentrant"):
            self.enable_input_require_grads()

    def save_pretrained(self, *args, **kwargs):
        """Save as transformers does, and enter every Auto class and pipeline that can load the folder."""
        # transformers enters only the class that is saved; yet a pre-training checkpoint is also a TVTSv2Model.
        if self._auto_class is not None and self.config.model_type == TVTSv2Config.model_type:
            self.config.auto_map = {**_AUTO_MAP, **(getattr(self.config, "auto_map", None) or {})}
            # Imported here: pipelines are heavy, and this line makes transformers copy their file.
            from .pipelines_tvtsv2 import CUSTOM_PIPELINES

            self.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        return super().save_pretrained(*args, **kwargs)


class TVTSv2TextModel(TVTSv2PreTrainedModel, CLIPTextModel):
    """CLIP's text tower: causal blocks; the embedding is the state at the first end-of-text token."""

    config_class = TVTSv2TextConfig
    base_model_prefix = "text_model"
    # The rest of a whole model, from which the tower can be loaded.
    _keys_to_ignore_on_load_unexpected = [
        *TVTSv2PreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(vision_model|visual_projection|text_projection|sorter|classifier)\.",
    ]
    input_modalities = CLIPTextModel.input_modalities
    _no_split_modules = ["CLIPTextEmbeddings", "CLIPEncoderLayer"]
    _can_record_outputs = CLIPTextModel._can_record_outputs

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Return `last_hidden_state` (B, L, D) after the final layer norm and `pooler_output` (B, D).

        Args:
            input_ids: int64 (B, L), each row with an end-of-text token and padded on the right.
            attention_mask: accepted and not needed: under the causal mask no token after the end-of-text token can
                reach it.
            kwargs: `output_hidden_states`, `output_attentions`; eager attention alone returns weights, other
                implementations an empty tuple and a warning.

        Raises:
            ValueError: `input_ids` has not two axes or more tokens than positions, or a row has no end-of-text token
                (checked where it is free: not on an accelerator, not under compilation).
        """
        self._refuse_unknown_arguments(kwargs)
        self._check_inputs(input_ids)
        if kwargs.get("output_attentions") and self.config._attn_implementation != "eager":
            logger.warning_once(
                f"The text tower returns attentions under eager attention only, not under "
                f'{self.config._attn_implementation!r}; call model.set_attn_implementation("eager") first.'
            )
        hidden_states = self.embeddings(input_ids=input_ids)
        # By position: the fourth parameter, unused here, has another name in later releases of transformers.
        causal_mask = create_causal_mask(self.config, hidden_states, None, None)
        hidden_states = self.encoder(hidden_states, causal_mask, is_causal=True).last_hidden_state
        hidden_states = self.final_layer_norm(hidden_states)
        # argmax of 0/1 finds the first end-of-text token.
        ends = (input_ids == self.config.eos_token_id).int().argmax(dim=1).to(hidden_states.device)
        rows = torch.arange(input_ids.shape[0], device=hidden_states.device)
        pooled = hidden_states[rows, ends]
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def _check_inputs(self, input_ids: torch.Tensor) -> None:
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must be (batch, tokens), got {tuple(input_ids.shape)}.")
        if input_ids.device.type != "cpu" or torch.compiler.is_compiling():
            return
        has_end = (input_ids == self.config.eos_token_id).any(dim=1)
        if not has_end.all():
            raise ValueError(
                f"Text {int((~has_end).nonzero()[0])} has no end-of-text token "
                f"(eos_token_id={self.config.eos_token_id}), whose state is the text's embedding. Use the model's own "
                "processor, or a tokenizer that appends it."
            )


class TVTSv2VisionModel(TVTSv2PreTrainedModel):
    """The video tower without projection."""

    config_class = TVTSv2VisionConfig
    base_model_prefix = "vision_model"
    _keys_to_ignore_on_load_unexpected = [
        *TVTSv2PreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(text_model|visual_projection|text_projection|sorter|classifier)\.",
    ]
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _input_embed_layer = "patch_embedding"

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.embeddings = TVTSv2VideoEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # CLIP's spelling
        self.encoder = TVTSv2VideoEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        bool_masked_pos: torch.Tensor | None = None,
        num_masked_patches: int | None = None,
        interpolate_pos_encoding: bool = False,
        class_token_only: bool = False,
        **kwargs,
    ) -> TVTSv2VisionModelOutput:
        """Return the states of all tokens and of the class token.

        The final layer norm has run over the class token in any case, over the others as `post_layernorm_scope` says.

        Args:
            pixel_values_videos: float (B, T, 3, H, W), normalized by the processor.
            bool_masked_pos: bool (B, N), True = dropped from every frame; the same count in every row.
            num_masked_patches: that count. Without it the mask is read, which makes an accelerator wait and which
                `torch.compile(fullgraph=True)` cannot do.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            class_token_only: return `last_hidden_state` (B, 1, D), the class token: the same embedding for less work,
                as the last block computes this token alone (all tokens if hidden states or attentions are requested).
            kwargs: `output_hidden_states`, `output_attentions`.

        Raises:
            ValueError: shapes do not fit the configuration, or rows drop different counts.
        """
        self._refuse_unknown_arguments(kwargs)
        kept = None
        if bool_masked_pos is not None:
            height, width = (side // self.config.patch_size for side in pixel_values_videos.shape[-2:])
            mask_shape = (pixel_values_videos.shape[0], height * width)
            kept = kept_patch_indices(bool_masked_pos, num_masked_patches, mask_shape)
        output_attentions = bool(kwargs.get("output_attentions", self.config.output_attentions))
        records_all = output_attentions or kwargs.get("output_hidden_states", self.config.output_hidden_states)

        hidden_states = self.pre_layrnorm(self.embeddings(pixel_values_videos, kept, interpolate_pos_encoding))
        hidden_states, time_weights, space_weights = self.encoder(
            hidden_states, pixel_values_videos.shape[1], class_token_only and not records_all, output_attentions
        )
        if class_token_only:
            hidden_states = hidden_states[:, :1]
        if self.config.post_layernorm_scope == "all":
            hidden_states = self.post_layernorm(hidden_states)
            pooled = hidden_states[:, 0]
        else:
            pooled = self.post_layernorm(hidden_states[:, 0])
        return TVTSv2VisionModelOutput(
            last_hidden_state=hidden_states,
            pooler_output=pooled,
            attentions=space_weights,
            temporal_attentions=time_weights,
        )


for _tower in (TVTSv2TextModel, TVTSv2VisionModel):
    _tower.register_for_auto_class("AutoModel")  # saved on its own, also from remote code, a tower takes its code along

__all__ = ["TVTSv2PreTrainedModel", "TVTSv2TextModel", "TVTSv2VisionModel"]
