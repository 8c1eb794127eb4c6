"""TVTSv2: both towers, with what pre-training and classification add.

Axes: B videos, T frames, N patches per frame, K transcripts per video, L text tokens, D width, P projection.

Unlike CLIP in transformers:
- the video tower takes frames (B, T, 3, H, W) and attends over time, too (video_encoder_tvtsv2.py);
- similarities are divided by a constant temperature instead of a learned scale;
- embeddings are returned as projected, not normalized to length 1.
"""

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from .configuration_tvtsv2 import TVTSv2Config
from .outputs_tvtsv2 import (
    TVTSv2ForPreTrainingOutput,
    TVTSv2ForVideoClassificationOutput,
    TVTSv2Output,
    contrastive_loss,
    sorting_loss,
)
from .towers_tvtsv2 import TVTSv2PreTrainedModel, TVTSv2TextModel, TVTSv2VisionModel
from .transcript_sorter_tvtsv2 import TVTSv2TranscriptSorter


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
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
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
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
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
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
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
    ) -> TVTSv2ForVideoClassificationOutput:
        """Return `logits` (B, num_labels), and `loss` if there are labels.

        Args:
            pixel_values_videos: float (B, T, 3, H, W) from the processor.
            labels: as `config.problem_type` says: int64 (B,) for `"single_label_classification"` (cross-entropy), float
                (B, num_labels) of 0 and 1 for `"multi_label_classification"` (binary cross-entropy), float
                (B, num_labels) for `"regression"` (mean squared error). An unset type is derived from the first labels,
                as in all classifiers of transformers.
            interpolate_pos_encoding: as for `TVTSv2VisionModel`.
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
        return TVTSv2ForVideoClassificationOutput(
            loss=loss,
            logits=logits,
            hidden_states=video.hidden_states,
            attentions=video.attentions,
            temporal_attentions=video.temporal_attentions,
        )


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
