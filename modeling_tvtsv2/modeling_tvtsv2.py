"""TVTSv2: CLIP's text tower, a video tower with divided space-time attention, and pre-training's transcript sorter.

Axes: B videos, T frames, N patches of a frame, K transcripts of a video, L text tokens, D width, P projection.

What is unlike CLIP in transformers:
- the video tower sees frames (B, T, 3, H, W) and has attention over time (video_encoder_tvtsv2.py);
- similarities are divided by a constant temperature, there is no learned logit scale;
- embeddings are returned as projected, not normalised to length 1.
Attribute names are CLIP's wherever CLIP has the part, so a CLIP checkpoint loads as it is.
"""

import copy
import inspect
from dataclasses import dataclass

import torch
from torch import nn
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.clip.modeling_clip import CLIPPreTrainedModel, CLIPTextModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_tvtsv2 import TVTSv2Config, TVTSv2TextConfig, TVTSv2VisionConfig
from .losses_tvtsv2 import contrastive_loss, sorting_loss
from .transcript_sorter_tvtsv2 import TVTSv2TranscriptSorter, init_sorter_weights
from .video_embeddings_tvtsv2 import TVTSv2VideoEmbeddings, init_embedding_weights, kept_patch_indices
from .video_encoder_tvtsv2 import TVTSv2VideoEncoder, TVTSv2VideoLayer, init_time_attention

_AUTO_MAP = {
    "AutoConfig": "configuration_tvtsv2.TVTSv2Config",
    "AutoModel": "modeling_tvtsv2.TVTSv2Model",
    "AutoModelForPreTraining": "modeling_tvtsv2.TVTSv2ForPreTraining",
    "AutoModelForVideoClassification": "modeling_tvtsv2.TVTSv2ForVideoClassification",
}

# What transformers' own callers (Trainer, pipelines, PEFT) pass to any model: its decorators act on them, or nobody.
_ARGUMENTS_OF_TRANSFORMERS = {"num_items_in_batch", "output_attentions", "output_hidden_states", "return_dict"}


@dataclass
class TVTSv2Output(ModelOutput):
    """What `TVTSv2Model` returns.

    loss (scalar, only with `return_loss=True`): the contrastive loss; text i belongs to video i.
    logits_per_video (num_videos, num_texts): cosine similarities divided by the temperature.
    logits_per_text (num_texts, num_videos): the same, transposed.
    text_embeds (num_texts, P), video_embeds (num_videos, P): projected, not normalised.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None


@dataclass
class TVTSv2ForPreTrainingOutput(ModelOutput):
    """What `TVTSv2ForPreTraining` returns.

    loss (scalar): `contrastive_loss`, plus `sorting_loss` where there is one.
    contrastive_loss (scalar): InfoNCE in both directions, summed, over the videos of this call.
    sorting_loss (scalar or None): the sorter's cross-entropy times `sorting_loss_weight`.
    text_embeds (B, P): the mean of a video's K transcript embeddings; video_embeds (B, P). Not normalised.
    sorting_logits (B, K, K) or None: row k scores the places in time of transcript k.
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    sorting_loss: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    sorting_logits: torch.Tensor | None = None


class TVTSv2PreTrainedModel(CLIPPreTrainedModel):
    """Loading, saving and initialisation shared by all TVTSv2 models."""

    config_class = TVTSv2Config
    base_model_prefix = ""
    input_modalities = ("video", "text")
    _no_split_modules = ["TVTSv2VideoEmbeddings", "TVTSv2VideoLayer", "TVTSv2SorterLayer"]
    _can_record_outputs = {"hidden_states": TVTSv2VideoLayer}
    # CLIP's learned temperature, and an index buffer that old CLIP checkpoints hold: neither is a weight of this model.
    _keys_to_ignore_on_load_unexpected = [r"^logit_scale$", r"position_ids$"]

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        # In custom code transformers skips every module without parameters of its own, in case its initialisation does
        # not spare loaded weights. Ours does (transformers.initialization), and CLIP's attention is such a module.
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
        """Raises `TypeError`, as Python would, for a name in forward's `**kwargs` that means nothing to anybody."""
        unknown = [name for name in arguments if name not in _ARGUMENTS_OF_TRANSFORMERS]
        if unknown:
            known = [name for name in inspect.signature(self.forward).parameters if name != "kwargs"]
            raise TypeError(
                f"{type(self).__name__}.forward() got unexpected arguments {', '.join(map(repr, unknown))}; it takes "
                f"{', '.join(known)}."
            )

    def save_pretrained(self, *args, **kwargs):
        """Saves as transformers does, and makes the folder known to every Auto class and pipeline that can use it."""
        # transformers enters only the class that is saved; yet a pre-training checkpoint is also a TVTSv2Model.
        if self._auto_class is not None and self.config.model_type == TVTSv2Config.model_type:
            self.config.auto_map = {**_AUTO_MAP, **(getattr(self.config, "auto_map", None) or {})}
            # Imported here: pipelines are heavy, and this line is what makes transformers copy their file along.
            from .pipelines_tvtsv2 import CUSTOM_PIPELINES

            self.config.custom_pipelines = copy.deepcopy(CUSTOM_PIPELINES)
        return super().save_pretrained(*args, **kwargs)


class TVTSv2TextModel(TVTSv2PreTrainedModel, CLIPTextModel):
    """CLIP's text tower: causal blocks; the text is read off at its first end-of-text token."""

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
        """Returns `last_hidden_state` (B, L, D) after the final layer norm and `pooler_output` (B, D).

        Args:
            input_ids: int64 (B, L), each row with an end-of-text token and padded on the right.
            attention_mask: accepted and not needed: under the causal mask nothing behind the end-of-text token can
                reach it.

        Raises:
            ValueError: not two axes, more tokens than positions, or a row without end-of-text token (checked where
                looking costs nothing: not on an accelerator, not under compilation).
        """
        self._refuse_unknown_arguments(kwargs)
        if input_ids.ndim != 2:
            raise ValueError(f"input_ids must be (batch, tokens), got {tuple(input_ids.shape)}.")
        is_end = input_ids == self.config.eos_token_id
        if input_ids.device.type == "cpu" and not torch.compiler.is_compiling() and not is_end.any(dim=1).all():
            row = int((~is_end.any(dim=1)).nonzero()[0])
            raise ValueError(
                f"Text {row} has no end-of-text token (eos_token_id={self.config.eos_token_id}), and that token is "
                "what is read off. Use the model's own processor, or a tokenizer that appends it."
            )
        hidden_states = self.embeddings(input_ids=input_ids)
        causal_mask = create_causal_mask(
            config=self.config, inputs_embeds=hidden_states, attention_mask=None, past_key_values=None
        )
        hidden_states = self.encoder(hidden_states, causal_mask, is_causal=True).last_hidden_state
        hidden_states = self.final_layer_norm(hidden_states)
        # argmax of 0/1 finds the first end-of-text token.
        pooled = hidden_states[torch.arange(input_ids.shape[0], device=input_ids.device), is_end.int().argmax(dim=1)]
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


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

    def __init__(self, config: TVTSv2VisionConfig):
        super().__init__(config)
        width, eps = config.hidden_size, config.layer_norm_eps
        self.embeddings = TVTSv2VideoEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(width, eps=eps)  # CLIP's spelling
        self.encoder = TVTSv2VideoEncoder(config)
        self.post_layernorm = nn.LayerNorm(width, eps=eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings.patch_embedding

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
    ) -> BaseModelOutputWithPooling:
        """Returns `last_hidden_state` (B, 1 + T*N, D), class token first, and `pooler_output` (B, D), the class token.

        The final layer norm has run over the class token in any case, over the others as `post_layernorm_scope` says.

        Args:
            pixel_values_videos: float (B, T, 3, H, W), normalised by the processor.
            bool_masked_pos: bool (B, N), True = dropped from every frame; the same count in every row.
            num_masked_patches: that count. Without it the mask is looked at, which makes an accelerator wait and
                which `torch.compile(fullgraph=True)` cannot do.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            class_token_only: the last block computes the class token alone, and `last_hidden_state` is (B, 1, D): the
                same embedding for less work, where nobody looks at the patches.

        Raises:
            ValueError: shapes that do not fit the configuration, or rows that drop different counts.
        """
        self._refuse_unknown_arguments(kwargs)
        kept = None
        if bool_masked_pos is not None:
            height, width = (side // self.config.patch_size for side in pixel_values_videos.shape[-2:])
            mask_shape = (pixel_values_videos.shape[0], height * width)
            kept = kept_patch_indices(bool_masked_pos, num_masked_patches, mask_shape)
        hidden_states = self.embeddings(pixel_values_videos, kept, interpolate_pos_encoding)
        hidden_states = self.encoder(self.pre_layrnorm(hidden_states), pixel_values_videos.shape[1], class_token_only)
        if self.config.post_layernorm_scope == "all":
            hidden_states = self.post_layernorm(hidden_states)
            pooled = hidden_states[:, 0]
        else:
            pooled = self.post_layernorm(hidden_states[:, 0])
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)


class TVTSv2Model(TVTSv2PreTrainedModel):
    """Both towers and their projections into one space: what searches, classifies and embeds."""

    # Left over when a pre-training checkpoint is loaded for use: the sorter has done its work.
    _keys_to_ignore_on_load_unexpected = [
        *TVTSv2PreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^sorter\.",
    ]

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config
        self.text_model = TVTSv2TextModel._from_config(text_config)
        self.vision_model = TVTSv2VisionModel._from_config(vision_config)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.embeddings.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.embeddings.token_embedding = value

    @can_return_tuple
    def get_text_features(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs
    ) -> BaseModelOutputWithPooling:
        """Returns the text tower's output with `pooler_output` (B, P): the projected text embeddings, not normalised.

        Args:
            input_ids, attention_mask: int64 (B, L) from the processor.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        outputs = self.text_model(input_ids, attention_mask, return_dict=True, **kwargs)
        outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        interpolate_pos_encoding: bool = False,
        class_token_only: bool = False,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """Returns the video tower's output with `pooler_output` (B, P): the projected video embeddings, not normalised.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor; T = 1 is an image.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            class_token_only: the same embeddings sooner; `last_hidden_state` then holds the class token alone.
            kwargs: more of `TVTSv2VisionModel`'s arguments.
        """
        outputs = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            class_token_only=class_token_only,
            return_dict=True,
            **kwargs,
        )
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values_videos: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        return_loss: bool = False,
        **kwargs,
    ) -> TVTSv2Output:
        """Returns the similarities of every video with every text.

        Args:
            input_ids, attention_mask: int64 (num_texts, L).
            pixel_values_videos: float (num_videos, T, 3, H, W).
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            return_loss: also return the contrastive loss; needs as many texts as videos, in the same order.
        """
        self._refuse_unknown_arguments(kwargs)
        text_embeds = self.get_text_features(input_ids, attention_mask, return_dict=True).pooler_output
        video_embeds = self.get_video_features(
            pixel_values_videos, interpolate_pos_encoding, class_token_only=True, return_dict=True
        ).pooler_output
        temperature = self.config.contrastive_temperature
        videos = nn.functional.normalize(video_embeds, dim=-1)
        logits_per_video = videos @ nn.functional.normalize(text_embeds, dim=-1).T / temperature
        return TVTSv2Output(
            loss=contrastive_loss(video_embeds, text_embeds, temperature) if return_loss else None,
            logits_per_video=logits_per_video,
            logits_per_text=logits_per_video.T,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
        )


class TVTSv2ForPreTraining(TVTSv2Model):
    """`TVTSv2Model` with the transcript sorter and both losses. Parameter names are `TVTSv2Model`'s plus `sorter.*`."""

    _keys_to_ignore_on_load_unexpected = TVTSv2PreTrainedModel._keys_to_ignore_on_load_unexpected

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        self.sorter = TVTSv2TranscriptSorter(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        bool_masked_pos: torch.Tensor | None = None,
        num_masked_patches: int | None = None,
        sorting_labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> TVTSv2ForPreTrainingOutput:
        """Returns losses, embeddings and sorting logits of a batch.

        Args:
            pixel_values_videos: float (B, T, 3, H, W).
            input_ids, attention_mask: int64 (B, K, L): K transcripts of each video, in any order. K = 1 (captions):
                nothing to sort.
            bool_masked_pos, num_masked_patches: the tube mask, as for `TVTSv2VisionModel`.
            sorting_labels: int64 (B, K), the place in time, 0 first, of each transcript; without it there are logits
                but no sorting loss.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.

        Raises:
            ValueError: shapes that do not fit each other or the configuration.
        """
        self._refuse_unknown_arguments(kwargs)
        num_transcripts = self._check_transcripts(pixel_values_videos, input_ids)
        tokens = input_ids.flatten(0, 1)
        transcripts = self.get_text_features(tokens, return_dict=True).pooler_output.view(*input_ids.shape[:2], -1)
        text_embeds = transcripts.mean(dim=1)

        video = self.vision_model(
            pixel_values_videos,
            bool_masked_pos,
            num_masked_patches,
            interpolate_pos_encoding,
            class_token_only=num_transcripts == 1,  # patches are the sorter's matter
            return_dict=True,
        )
        video_embeds = self.visual_projection(video.pooler_output)

        loss = contrastive = contrastive_loss(video_embeds, text_embeds, self.config.contrastive_temperature)
        logits = sorting = None
        if num_transcripts > 1:
            states = video.last_hidden_state
            states = states if self.config.sorter_uses_class_token else states[:, 1:]
            # Detached: sorting must teach the video tower, not bend the language to the task.
            logits = self.sorter(self.visual_projection(states), transcripts.detach())
            if sorting_labels is not None:
                sorting = sorting_loss(logits, sorting_labels, self.config.sorting_loss_weight)
                loss = contrastive + sorting
        return TVTSv2ForPreTrainingOutput(
            loss=loss,
            contrastive_loss=contrastive,
            sorting_loss=sorting,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            sorting_logits=logits,
        )

    def _check_transcripts(self, pixel_values_videos: torch.Tensor, input_ids: torch.Tensor) -> int:
        if input_ids.ndim != 3 or len(input_ids) != len(pixel_values_videos):
            raise ValueError(
                f"input_ids must be (batch, transcripts, tokens) with batch {len(pixel_values_videos)}, as there are "
                f"videos; got {tuple(input_ids.shape)}."
            )
        num_transcripts = input_ids.shape[1]
        if num_transcripts not in (1, self.config.num_transcripts):
            raise ValueError(
                f"Got {num_transcripts} transcripts a video; the sorter was built for {self.config.num_transcripts}, "
                "and 1 (a caption, no sorting) is the only other choice."
            )
        return num_transcripts


class TVTSv2ForVideoClassification(TVTSv2PreTrainedModel):
    """The video tower and a linear classifier on its embedding (the one that `get_video_features` returns)."""

    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    _keys_to_ignore_on_load_unexpected = [
        *TVTSv2PreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(sorter|text_model|text_projection)\.",
    ]

    def __init__(self, config: TVTSv2Config):
        super().__init__(config)
        self.vision_model = TVTSv2VisionModel._from_config(config.vision_config)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.classifier = nn.Linear(config.projection_dim, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> ImageClassifierOutput:
        """Returns `logits` (B, num_labels), and `loss`, the cross-entropy, where `labels` int64 (B,) are given."""
        self._refuse_unknown_arguments(kwargs)
        video = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            class_token_only=True,
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.visual_projection(video.pooler_output))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return ImageClassifierOutput(loss=loss, logits=logits, hidden_states=video.hidden_states)


__all__ = [
    "TVTSv2ForPreTraining",
    "TVTSv2ForVideoClassification",
    "TVTSv2Model",
    "TVTSv2PreTrainedModel",
    "TVTSv2TextModel",
    "TVTSv2VisionModel",
]
