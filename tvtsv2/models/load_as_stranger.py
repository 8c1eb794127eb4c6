"""What a model folder computes from a file and texts; as a script, by its own code, where this project is not.

    python load_as_stranger.py FOLDER REQUEST.json ANSWER.json

REQUEST holds "video", a path, and "texts"; ANSWER gets what `embed` returns, or "error".

Axes: B texts, P projection.
"""

import json
import sys


def main(folder: str, request_file: str, answer_file: str) -> None:
    """Write the embeddings, or the reason why there are none."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    try:
        answer = load_and_embed(folder, **request)
    except Exception as error:  # whatever the folder's code raises is the finding
        answer = {"error": f"{type(error).__name__}: {error}"}
    with open(answer_file, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def load_and_embed(folder: str, video: str, texts: list[str]) -> dict:
    """Return what `embed` does, of the model, processor and pipelines that the folder's code makes."""
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    is_classifier = "TVTSv2ForVideoClassification" in (config.architectures or [])
    model_class = AutoModelForVideoClassification if is_classifier else AutoModel
    # In the type that the folder asks for, which rounds where the weights have more bits.
    model = model_class.from_pretrained(
        folder, trust_remote_code=True, use_safetensors=True, attn_implementation="eager"
    ).float()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    tasks = () if is_classifier else ("video-feature-extraction", "zero-shot-video-classification")
    pipelines = [get_class_from_dynamic_module(config.custom_pipelines[task]["impl"], folder) for task in tasks]
    return embed(model.eval(), processor, video, texts, pipelines)


def embed(model, processor, video: str, texts: list[str], pipelines: list) -> dict[str, list]:
    """Return "videos" (1, P) and "texts" (B, P), and from the pipelines "features" (1, P) and "scores" (1, B).

    Args:
        pipelines: the classes for feature extraction and zero-shot classification; none for a classifier, of which
            "videos" (1, classes) are the logits, and nothing else is returned.
    """
    import torch

    with torch.no_grad():
        videos = processor(videos=video, return_tensors="pt").to(model.device)
        if not pipelines:
            return {"videos": model(**videos).logits.tolist()}
        output = model(**videos, **processor(text=texts, return_tensors="pt").to(model.device))
        extract, classify = (each(model=model, processor=processor, device=model.device) for each in pipelines)
        scores = {each["label"]: each["score"] for each in classify(video, candidate_labels=texts, templates="{}")}
        embeds = {"videos": output.video_embeds.tolist(), "texts": output.text_embeds.tolist()}
        return embeds | {"features": [extract(video)], "scores": [[scores[text] for text in texts]]}


if __name__ == "__main__":
    for _name in ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2"):
        sys.modules[_name] = None  # type: ignore[assignment]  # an import of them raises, as where they are not installed
    main(*sys.argv[1:])
