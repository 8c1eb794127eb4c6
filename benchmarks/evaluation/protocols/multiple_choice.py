"""Zero-shot multiple choice: the option most similar to the video, each video with options of its own."""

import numpy as np

from benchmarks.evaluation.annotations.multiple_choice import MultipleChoiceSet
from benchmarks.evaluation.embeddings.sources import Source
from benchmarks.evaluation.protocols.bootstrap import bootstrap_intervals
from benchmarks.evaluation.protocols.recognition import RecognitionResult
from benchmarks.evaluation.protocols.recognition_metrics import TOP_K, label_ranks, recognition_chance
from benchmarks.evaluation.protocols.retrieval import with_intervals


def run_multiple_choice(
    split: MultipleChoiceSet, source: Source, *, allow_missing: bool, seed: int
) -> RecognitionResult:
    """Evaluate a split; options that several videos share are embedded once."""
    videos = source.embed_videos(split.videos, allow_missing=allow_missing)
    place = {name: number for number, name in enumerate(split.videos)}
    questions = [place[name] for name in videos.names]
    texts = list(dict.fromkeys(text for question in questions for text in split.options[question]))
    row_of = {text: row for row, text in enumerate(texts)}
    embeddings = source.embed_texts(texts).astype(np.float64)
    answers = np.array([split.answers[question] for question in questions])
    width = max(len(split.options[question]) for question in questions)
    scores = np.full((len(questions), width), -np.inf)  # no option: never chosen
    ranks = np.empty(len(questions))
    for number, question in enumerate(questions):
        own = embeddings[[row_of[text] for text in split.options[question]]] @ videos.values[number].astype(np.float64)
        scores[number, : len(own)] = own
        ranks[number] = label_ranks(own[None], answers[number : number + 1])[0]

    def metrics_of(numbers: np.ndarray) -> dict[str, float]:
        return {f"top_{k}": float(np.mean(ranks[numbers] <= k)) for k in TOP_K}

    everything = np.arange(len(ranks))
    metrics = with_intervals(metrics_of(everything), bootstrap_intervals(metrics_of, everything, seed=seed))
    options = [split.options[question] for question in questions]
    chance = recognition_chance(answers, np.array([len(own) for own in options]))
    return RecognitionResult(metrics, {name: chance[name] for name in metrics}, videos, options, scores, answers)
