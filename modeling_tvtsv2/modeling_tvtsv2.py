"""TVTSv2: both towers, with what pre-training and classification add, and the two pre-training losses.

Axes: B videos, T frames, N patches per frame, K transcripts per video, L text tokens, D width, P projection.

Unlike CLIP in transformers:
- the video tower takes frames (B, T, 3, H, W) and attends over time, too (video_encoder_tvtsv2.py);
- similarities are divided by a constant temperature; there is no learned logit scale;
- embeddings are returned as projected, not normalized to length 1.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_tvtsv2 import TVTSv2Config
from .towers_tvtsv2 import (
    TVTSv2PreTrainedModel,
    TVTSv2TextModel,
    TVTSv2VisionModel,
    TVTSv2VisionModelOutput,
)
from .transcript_sorter_tvtsv2 import TVTSv2TranscriptSorter


@dataclass
class TVTSv2Output(ModelOutput):
    """Output of `TVTSv2Model`.

    loss (scalar, with `return_loss=True`): the contrastive loss; text i belongs to video i.
    logits_per_video (num_videos, num_texts): cosine similarities divided by the temperature.
    logits_per_text (num_texts, num_videos): the same, transposed.
    text_embeds (num_texts, P), video_embeds (num_videos, P): projected, not normalized.
    text_model_output, vision_model_output: what `get_text_features` and `get_video_features` return, the latter with
        `class_token_only=True`.
    """

    loss: torch.Tensor | None = None
    logits_per_video: torch.Tensor | None = None
    logits_per_text: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, the towers' outputs as tuples."""
        return _to_nested_tuple(self)


@dataclass
class TVTSv2ForPreTrainingOutput(ModelOutput):
    """Output of `TVTSv2ForPreTraining`.

    loss (scalar): `contrastive_loss`, plus `sorting_loss` where there is one.
    contrastive_loss (scalar): InfoNCE in both directions, summed, over the videos of this call.
    sorting_loss (scalar or None): the sorter's cross-entropy times `sorting_loss_weight`.
    text_embeds (B, P): the mean of a video's K transcript embeddings; video_embeds (B, P). Not normalized.
    sorting_logits (B, K, K) or None: row k scores the places in time of transcript k.
    text_model_output, vision_model_output: what `get_text_features` returns for the B*K transcripts, and
        `get_video_features` for the masked videos (with `class_token_only=True` if K = 1).
    """

    loss: torch.Tensor | None = None
    contrastive_loss: torch.Tensor | None = None
    sorting_loss: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    video_embeds: torch.Tensor | None = None
    sorting_logits: torch.Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: TVTSv2VisionModelOutput | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, the towers' outputs as tuples."""
        return _to_nested_tuple(self)


def _to_nested_tuple(output: ModelOutput) -> tuple[Any, ...]:
    return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in output.values())


class TVTSv2Model(TVTSv2PreTrainedModel):
    """Both towers and their projections into one space, for embedding, search and zero-shot classification."""

    # Left over when a pre-training checkpoint is loaded for use: the sorter serves pre-training only.
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
        """Return the text tower's output with `pooler_output` (B, P): the projected text embeddings, not normalized.

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
        """Return the video tower's output with `pooler_output` (B, P): the projected video embeddings, not normalized.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor; T = 1 is an image.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            class_token_only: the same embeddings for less work; `last_hidden_state` then holds the class token alone.
            kwargs: other arguments of `TVTSv2VisionModel`.
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
        """Return the similarities of every video with every text.

        Args:
            input_ids, attention_mask: int64 (num_texts, L).
            pixel_values_videos: float (num_videos, T, 3, H, W).
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            return_loss: also return the contrastive loss; needs as many texts as videos, in the same order.
            kwargs: `output_hidden_states`, `output_attentions`: returned in the towers' outputs.
        """
        self._refuse_unknown_arguments(kwargs)
        text = self.get_text_features(input_ids, attention_mask, **kwargs | {"return_dict": True})
        video = self.get_video_features(
            pixel_values_videos, interpolate_pos_encoding, class_token_only=True, **kwargs | {"return_dict": True}
        )
        video_embeds = video.pooler_output
        text_embeds = text.pooler_output.to(video_embeds.device)  # the towers may be on different devices
        temperature = self.config.contrastive_temperature
        videos = nn.functional.normalize(video_embeds, dim=-1)
        logits_per_video = videos @ nn.functional.normalize(text_embeds, dim=-1).T / temperature
        return TVTSv2Output(
            loss=contrastive_loss(video_embeds, text_embeds, temperature) if return_loss else None,
            logits_per_video=logits_per_video,
            logits_per_text=logits_per_video.T,
            text_embeds=text_embeds,
            video_embeds=video_embeds,
            text_model_output=text,
            vision_model_output=video,
        )


class TVTSv2ForPreTraining(TVTSv2Model):
    """`TVTSv2Model` with the transcript sorter and both losses. Parameter names are `TVTSv2Model`'s plus `sorter.*`."""

    main_input_name = "pixel_values_videos"
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
        """Return losses, embeddings and sorting logits of a batch.

        Args:
            pixel_values_videos: float (B, T, 3, H, W).
            input_ids, attention_mask: int64 (B, K, L): K transcripts of each video, in any order. With K = 1
                (captions) there is nothing to sort.
            bool_masked_pos, num_masked_patches: the tube mask, as for `TVTSv2VisionModel`.
            sorting_labels: int64 (B, K), the place in time of each transcript, 0 first; without it, logits but no
                sorting loss are returned.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            kwargs: `output_hidden_states`, `output_attentions`: returned in the towers' outputs.

        Raises:
            ValueError: shapes do not fit each other or the configuration.
        """
        self._refuse_unknown_arguments(kwargs)
        num_transcripts = self._check_transcripts(pixel_values_videos, input_ids)
        kwargs["return_dict"] = True
        text = self.get_text_features(input_ids.flatten(0, 1), **kwargs)
        video = self.get_video_features(
            pixel_values_videos,
            interpolate_pos_encoding,
            class_token_only=num_transcripts == 1,  # only the sorter reads the patches
            bool_masked_pos=bool_masked_pos,
            num_masked_patches=num_masked_patches,
            **kwargs,
        )
        video_embeds = video.pooler_output
        transcripts = text.pooler_output.to(video_embeds.device).view(*input_ids.shape[:2], -1)
        text_embeds = transcripts.mean(dim=1)

        loss = contrastive = contrastive_loss(video_embeds, text_embeds, self.config.contrastive_temperature)
        logits = sorting = None
        if num_transcripts > 1:
            states = video.last_hidden_state
            states = states if self.config.sorter_uses_class_token else states[:, 1:]
            # Detached: the sorting loss trains the video tower and must not distort the language (paper, section 3.2).
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
            text_model_output=text,
            vision_model_output=video,
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
                f"Got {num_transcripts} transcripts per video; the sorter was built for {self.config.num_transcripts}, "
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

    def get_input_embeddings(self) -> nn.Module:
        return self.vision_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.vision_model.set_input_embeddings(value)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        labels: torch.Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs,
    ) -> ImageClassifierOutput:
        """Return `logits` (B, num_labels), and `loss` if there are labels.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor.
            labels: as `config.problem_type` says: int64 (B,) for `"single_label_classification"` (cross-entropy), float
                (B, num_labels) of 0 and 1 for `"multi_label_classification"` (binary cross-entropy), float
                (B, num_labels) for `"regression"` (mean squared error). An unset type is derived from the first labels,
                as in all classifiers of transformers.
            interpolate_pos_encoding: allow more frames or another image size than the model was built for.
            kwargs: `output_hidden_states`, `output_attentions`.
        """
        self._refuse_unknown_arguments(kwargs)
        video = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            class_token_only=True,
            **kwargs | {"return_dict": True},
        )
        logits = self.classifier(self.visual_projection(video.pooler_output))
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=video.hidden_states, attentions=video.attentions
        )


def contrastive_loss(video_embeds: torch.Tensor, text_embeds: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    """Return InfoNCE in both directions, summed, as a scalar: row i of one side matches row i of the other.

    Args:
        video_embeds, text_embeds: (B, D), of any length; cosine similarities are taken.
        temperature: the similarities are divided by it.

    Raises:
        ValueError: the shapes differ.

    Source: paper, section 3.3, equations for the video-to-text and text-to-video terms; the released code adds the two
    batch means and does not halve.
    """
    if video_embeds.shape != text_embeds.shape or video_embeds.ndim != 2:
        raise ValueError(
            f"video_embeds and text_embeds must have the same shape (batch, width), got {tuple(video_embeds.shape)} "
            f"and {tuple(text_embeds.shape)}."
        )
    similarities = nn.functional.normalize(video_embeds, dim=-1) @ nn.functional.normalize(text_embeds, dim=-1).T
    # float32 from here: at temperature 0.05 logits reach 20, where bfloat16 has steps of 1/8.
    logits = similarities.float() / temperature
    own = torch.arange(len(logits), device=logits.device)
    return nn.functional.cross_entropy(logits, own) + nn.functional.cross_entropy(logits.T, own)


def sorting_loss(sorting_logits: torch.Tensor, sorting_labels: torch.Tensor, weight: float = 2.0) -> torch.Tensor:
    """Return the weighted cross-entropy of the sorter, averaged over all transcripts of all videos, as a scalar.

    Args:
        sorting_logits: (B, K, num_classes).
        sorting_labels: int64 (B, K), the place in time (0-based) of each transcript.
        weight: the loss is multiplied by it. Source: released code (2).

    Raises:
        ValueError: labels of another shape than (B, K).
    """
    if sorting_logits.shape[:-1] != sorting_labels.shape:
        raise ValueError(
            f"sorting_labels must be (batch, transcripts) = {tuple(sorting_logits.shape[:-1])}, got "
            f"{tuple(sorting_labels.shape)}."
        )
    return weight * nn.functional.cross_entropy(sorting_logits.flatten(0, 1).float(), sorting_labels.flatten())


for _auto_class, _model in (
    ("AutoModel", TVTSv2Model),
    ("AutoModelForPreTraining", TVTSv2ForPreTraining),
    ("AutoModelForVideoClassification", TVTSv2ForVideoClassification),
):
    _model.register_for_auto_class(_auto_class)


__all__ = [
    "TVTSv2ForPreTraining",
    "TVTSv2ForVideoClassification",
    "TVTSv2Model",
    "TVTSv2PreTrainedModel",
    "TVTSv2TextModel",
    "TVTSv2VisionModel",
]
