"""A script, not a module: load a model folder by its own code, where this project is not, and take a file through it.

    python load_as_stranger.py FOLDER REQUEST.json ANSWER.json

REQUEST holds "video", a path, and "texts"; ANSWER gets "videos" (1, P) and "texts" (B, P), or "error". Of a classifier,
"videos" (1, classes) are its logits, and there are no texts.
"""

import json
import sys

for _name in ("modeling_tvtsv2", "processing", "training", "benchmarks", "tvtsv2"):
    sys.modules[_name] = None  # type: ignore[assignment]  # an import of them raises, as where they are not installed


def main(folder: str, request_file: str, answer_file: str) -> None:
    """Write the embeddings, or the reason why there are none."""
    with open(request_file, encoding="utf-8") as file:
        request = json.load(file)
    try:
        answer = embed(folder, request)
    except Exception as error:  # whatever the folder's code raises is the finding
        answer = {"error": f"{type(error).__name__}: {error}"}
    with open(answer_file, "w", encoding="utf-8") as file:
        json.dump(answer, file)


def embed(folder: str, request: dict) -> dict:
    """Return the embeddings, or a classifier's logits, as lists."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoProcessor

    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    is_classifier = "TVTSv2ForVideoClassification" in (config.architectures or [])
    model_class = AutoModelForVideoClassification if is_classifier else AutoModel
    model = model_class.from_pretrained(
        folder, trust_remote_code=True, use_safetensors=True, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        inputs = processor(videos=request["video"], return_tensors="pt")
        if is_classifier:
            return {"videos": model(**inputs).logits.tolist()}
        videos = model.get_video_features(**inputs).pooler_output
        texts = model.get_text_features(**processor(text=request["texts"], return_tensors="pt")).pooler_output
    return {"videos": videos.tolist(), "texts": texts.tolist()}


if __name__ == "__main__":
    main(*sys.argv[1:])
