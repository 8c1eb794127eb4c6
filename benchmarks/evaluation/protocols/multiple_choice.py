"""Zero-shot multiple choice: the option most similar to the video, each video with options of its own."""

import numpy as np

from benchmarks.evaluation.annotations.multiple_choice import MultipleChoiceSet
from benchmarks.evaluation.embeddings.sources import Source
from benchmarks.evaluation.protocols.bootstrap import bootstrap_intervals
from benchmarks.evaluation.protocols.recognition import RecognitionResult
from benchmarks.evaluation.protocols.recognition_figures import TOP_K, label_ranks
from benchmarks.evaluation.protocols.retrieval import with_intervals


def run_multiple_choice(
    split: MultipleChoiceSet, source: Source, *, allow_missing: bool, seed: int
) -> RecognitionResult:
    """Evaluates a split; options that several videos share are embedded once."""
    videos = source.embed_videos(split.videos, allow_missing=allow_missing)
    place = {name: number for number, name in enumerate(split.videos)}
    questions = [place[name] for name in videos.names]
    texts = list(dict.fromkeys(text for question in questions for text in split.options[question]))
    row_of = {text: row for row, text in enumerate(texts)}
    embeddings = source.embed_texts(texts).astype(np.float64)
    answers = np.array([split.answers[question] for question in questions])
    width = max(len(split.options[question]) for question in questions)
    scores = np.full((len(questions), width), -np.inf)  # no option: never chosen
    ranks = np.empty(len(questions), dtype=int)
    for number, question in enumerate(questions):
        own = embeddings[[row_of[text] for text in split.options[question]]] @ videos.values[number].astype(np.float64)
        scores[number, : len(own)] = own
        ranks[number] = label_ranks(own[None], answers[number : number + 1])[0]

    def figures_of(numbers: np.ndarray) -> dict[str, float]:
        return {f"top_{k}": 100 * float(np.mean(ranks[numbers] <= k)) for k in TOP_K}

    everything = np.arange(len(ranks))
    figures = with_intervals(figures_of(everything), bootstrap_intervals(figures_of, everything, seed=seed))
    return RecognitionResult(figures, videos, [split.options[question] for question in questions], scores, answers)
