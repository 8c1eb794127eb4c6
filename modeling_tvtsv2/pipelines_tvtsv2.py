"""Pipelines of transformers: from videos to scores of labels, and from videos to embeddings.

    classify = pipeline("zero-shot-video-classification", model=folder, trust_remote_code=True)
    classify("video.mp4", candidate_labels=["archery", "juggling balls"])

    extract = pipeline("video-feature-extraction", model=folder, trust_remote_code=True)
    extract(["one.mp4", "two.mp4"], batch_size=2)

A video is what the processor accepts: a path, bytes, frames (T, H, W, 3) or (T, 3, H, W), a list of frames inside the
list of videos, or an image. Axes: B videos, T frames, C labels, P projection.
"""

import os
from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers.pipelines.base import Pipeline
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

# Written to config.json, where transformers finds the pipelines of a folder. The model is loaded by `AutoModel`.
CUSTOM_PIPELINES = {
    "zero-shot-video-classification": {
        "impl": "pipelines_tvtsv2.TVTSv2ZeroShotVideoClassificationPipeline",
        "pt": ["AutoModel"],
    },
    "video-feature-extraction": {
        "impl": "pipelines_tvtsv2.TVTSv2VideoFeatureExtractionPipeline",
        "pt": ["AutoModel"],
    },
}

# Source: the prompt of the paper's zero-shot action recognition.
DEFAULT_TEMPLATES = ("a person {}",)


class _VideoPipeline(Pipeline):
    """Reading, batching and embedding of videos."""

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Not isinstance: code from a folder has classes of its own.
        if not hasattr(self.model, "get_video_features"):
            raise ValueError(
                f"The pipeline {self.task!r} needs a model with both towers (TVTSv2Model), got a "
                f"{type(self.model).__name__}."
            )
        if self.processor is None:
            raise ValueError(
                f"The pipeline {self.task!r} needs a processor; pass processor=AutoProcessor.from_pretrained(...)."
            )

    def __call__(self, videos: Any, **kwargs):
        if isinstance(videos, list | tuple) and not videos:
            raise ValueError("There are no videos: the list is empty.")
        return super().__call__(videos, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Save model, processor and code, from which `pipeline(task, model=save_directory)` makes this pipeline."""
        super().save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory)

    def preprocess(self, video: Any) -> dict:
        videos = [video] if isinstance(video, list | tuple) else video
        pixels = self.processor(videos=videos)["pixel_values_videos"]
        if len(pixels) != 1:
            raise ValueError(f"One item of the input must be one video, but it holds {len(pixels)}.")
        return {"pixel_values_videos": pixels[0].to(self.dtype)}

    def _forward(self, model_inputs: list[dict]) -> torch.Tensor:
        """Return the projected embeddings (B, P), not normalized; images and videos may be mixed."""
        videos = [item["pixel_values_videos"] for item in model_inputs]
        embeds = [None] * len(videos)
        for shape in {video.shape for video in videos}:
            places = [place for place, video in enumerate(videos) if video.shape == shape]
            batch = torch.stack([videos[place] for place in places])
            rows = self.model.get_video_features(batch, class_token_only=True).pooler_output
            for place, row in zip(places, rows, strict=True):
                embeds[place] = row
        return torch.stack(embeds).float()

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator:
        """Yield the results of the videos in their order.

        Replaces the library's, which batches with a tokenizer and pads along the axis of frames.
        """
        dataset_class = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        dataset = dataset_class(inputs, self.preprocess, preprocess_params)
        for batch in DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=list):
            for embeds in self.forward(batch, **forward_params):
                yield self.postprocess(embeds, **postprocess_params)

    def run_single(self, inputs, preprocess_params, forward_params, postprocess_params):
        return next(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))


class TVTSv2ZeroShotVideoClassificationPipeline(_VideoPipeline):
    """Scores of labels that are named when the pipeline is called.

    A label becomes one text per template; the texts' embeddings, normalized, averaged and normalized again, are the
    label's, and a video's score is its cosine with it. Source: the paper's zero-shot action recognition.
    """

    def __call__(self, videos: Any, **kwargs) -> list[dict] | list[list[dict]]:
        """Return for a video a list of {"label", "score"}, best first; for a list of videos a list of such lists.

        Args:
            videos: One video, or a list, dataset or generator of videos.
            candidate_labels: Labels, at least one.
            templates: One or more texts with one `{}` for the label; "{}" for labels that are whole sentences. Default:
                the paper's prompt for actions, "a person {}".
            function_to_apply: "softmax": scores sum up to 1 over the labels, cosines divided by the model's
                temperature; "none": the cosines themselves, which do not depend on the other labels.
            top_k: Return only this many.
            batch_size, num_workers: Videos that go through the model at a time, and processes that read them.

        Raises:
            VideoReadingError: A file cannot be read.
            ValueError: No videos, no labels, a template without place for a label, or unknown values.
        """
        return super().__call__(videos, **kwargs)

    def _sanitize_parameters(
        self, candidate_labels=None, templates=None, function_to_apply=None, top_k=None, **unknown
    ) -> tuple[dict, dict, dict]:
        _refuse(unknown, "candidate_labels, templates, function_to_apply, top_k")
        if function_to_apply not in (None, "softmax", "none"):
            raise ValueError(f'function_to_apply must be "softmax" or "none", got {function_to_apply!r}.')
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}.")
        return _for_postprocess(
            labels=None if candidate_labels is None else _check_labels(candidate_labels),
            templates=None if templates is None else _check_templates(templates),
            function_to_apply=function_to_apply,
            top_k=top_k,
        )

    def get_iterator(
        self, inputs, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator:
        """Yield the results of the videos in their order; the labels are embedded once for all of them."""
        settings = dict(postprocess_params)
        if "labels" not in settings:
            raise ValueError('Give candidate_labels, such as candidate_labels=["archery", "juggling balls"].')
        settings["label_embeds"] = self.embed_labels(
            settings["labels"], settings.pop("templates", DEFAULT_TEMPLATES), batch_size=64
        )
        return super().get_iterator(inputs, num_workers, batch_size, preprocess_params, forward_params, settings)

    def embed_labels(self, labels: list[str], templates: tuple[str, ...], batch_size: int) -> torch.Tensor:
        """Return the labels' embeddings (C, P) of length 1, float32 on the CPU."""
        texts = [template.replace("{}", label) for label in labels for template in templates]
        rows = []
        for start in range(0, len(texts), batch_size):
            inputs = self.processor(text=texts[start : start + batch_size], return_tensors="pt").to(self.device)
            with torch.no_grad():
                rows.append(self.model.get_text_features(**inputs).pooler_output.float().cpu())
        embeds = nn.functional.normalize(torch.cat(rows), dim=-1).view(len(labels), len(templates), -1)
        return nn.functional.normalize(embeds.mean(dim=1), dim=-1)

    def postprocess(
        self,
        embeds: torch.Tensor,
        labels: list[str],
        label_embeds: torch.Tensor,
        function_to_apply: str = "softmax",
        top_k: int | None = None,
    ) -> list[dict]:
        scores = label_embeds @ nn.functional.normalize(embeds, dim=-1)
        if function_to_apply == "softmax":
            scores = (scores / self.model.config.contrastive_temperature).softmax(dim=-1)
        order = scores.argsort(descending=True, stable=True)[:top_k].tolist()
        return [{"label": labels[index], "score": scores[index].item()} for index in order]


class TVTSv2VideoFeatureExtractionPipeline(_VideoPipeline):
    """Embeddings of videos, as `get_video_features` gives them."""

    def __call__(self, videos: Any, **kwargs) -> list[float] | torch.Tensor | list:
        """Return for a video its embedding, P numbers; for a list of videos a list of them.

        The embedding is the class token of the last block after the final layer norm and the projection.

        Args:
            videos: One video, or a list, dataset or generator of videos.
            normalize: Scale embeddings to length 1; default False, as the model gives them.
            return_tensors: True: a float32 tensor (P,) instead of a list of floats.
            batch_size, num_workers: Videos that go through the model at a time, and processes that read them.

        Raises:
            VideoReadingError: A file cannot be read.
            ValueError: No videos.
        """
        return super().__call__(videos, **kwargs)

    def _sanitize_parameters(self, normalize=None, return_tensors=None, **unknown) -> tuple[dict, dict, dict]:
        _refuse(unknown, "normalize, return_tensors")
        return _for_postprocess(normalize=normalize, return_tensors=return_tensors)

    def postprocess(self, embeds: torch.Tensor, normalize: bool = False, return_tensors: bool = False):
        embeds = nn.functional.normalize(embeds, dim=-1) if normalize else embeds
        return embeds if return_tensors else embeds.tolist()


def _for_postprocess(**parameters) -> tuple[dict, dict, dict]:
    return {}, {}, {name: value for name, value in parameters.items() if value is not None}


def _refuse(unknown: dict, known: str) -> None:
    if unknown:
        raise TypeError(f"Unknown argument {sorted(unknown)[0]!r}; there are {known}, batch_size and num_workers.")


def _check_labels(labels: Any) -> list[str]:
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) and label.strip() for label in labels):
        raise ValueError(f"candidate_labels must be a list of at least one label, none empty; got {labels!r}.")
    return list(labels)


def _check_templates(templates: Any) -> tuple[str, ...]:
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates or not all(isinstance(template, str) and template.count("{}") == 1 for template in templates):
        raise ValueError(f"templates must be texts with one {{}} each, for the label; got {templates!r}.")
    return templates


__all__ = ["TVTSv2VideoFeatureExtractionPipeline", "TVTSv2ZeroShotVideoClassificationPipeline"]
