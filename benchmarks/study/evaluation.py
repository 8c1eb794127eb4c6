"""What a model of the study is evaluated in: time, and plain retrieval.

Test sentences are the same for every model of a seed.

Axes: V clips, D width of embeddings.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.study.sentences import SPOKEN, STYLES, Attributes
from benchmarks.study.synthetic_videos import NUM_TRANSCRIPTS, Clips, SyntheticVideos
from benchmarks.study.training_loop import to_pixels, tokenize
from modeling_tvtsv2 import TVTSv2ForPreTraining
from training.evaluation import retrieval_ranks
from training.linear_classifier import LinearClassifier

BATCH_SIZE = 144
TEXT_SEED = 12345
PROBE_PENALTY = 1e-2
OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}


class Embedder:
    """Embeddings of length 1, numpy float32; the model is switched to evaluation."""

    def __init__(self, model: CLIPModel | TVTSv2ForPreTraining, tokenizer: PreTrainedTokenizerFast):
        self.model, self.tokenizer = model, tokenizer

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        """(len(texts), D)."""
        self.model.eval()
        parts = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
        embeds = [
            self.model.get_text_features(tokenize(self.tokenizer, part).to(self.model.device)).pooler_output
            for part in parts
        ]
        return normalize(torch.cat(embeds), dim=-1).cpu().numpy()

    def clips(self, clips: Clips) -> np.ndarray:
        """(V, D); a CLIP's frame embeddings are averaged."""
        return self._run(clips)[0]

    def patches(self, clips: Clips) -> np.ndarray:
        """(V, D): the mean of the last block's patch tokens over frames and places, which only the sorter reads."""
        return self._run(clips)[1]

    @torch.no_grad()
    def _run(self, clips: Clips) -> list[np.ndarray]:
        """Return the embeddings and the mean patch tokens."""
        self.model.eval()
        parts = []
        for start in range(0, len(clips.frames), BATCH_SIZE):
            pixels = to_pixels(clips.frames[start : start + BATCH_SIZE]).to(self.model.device)
            if isinstance(self.model, CLIPModel):
                outputs = self.model.get_image_features(pixels.flatten(0, 1))
                embeds = normalize(outputs.pooler_output, dim=-1).unflatten(0, pixels.shape[:2]).mean(dim=1)
                patches = outputs.last_hidden_state[:, 1:].unflatten(0, pixels.shape[:2]).mean(dim=(1, 2))
            else:
                outputs = self.model.get_video_features(pixels)
                embeds, patches = outputs.pooler_output, outputs.last_hidden_state[:, 1:].mean(dim=1)
            parts.append((embeds, patches))
        return [normalize(torch.cat(each), dim=-1).cpu().numpy() for each in zip(*parts, strict=True)]


def sentences(attributes: list[Attributes], style: str) -> list[str]:
    """What a style says of each."""
    rng = np.random.default_rng([TEXT_SEED, list(STYLES).index(style)])
    return [STYLES[style](each, rng) for each in attributes]


def _in_order_of_clips(synthetic: SyntheticVideos) -> np.ndarray:
    """int (V,): where the attributes of each test clip stand among the held-out combinations."""
    return np.array([synthetic.test_attributes.index(attributes) for (attributes,) in synthetic.test.events])


def evaluate_time(embedder: Embedder, synthetic: SyntheticVideos) -> dict[str, float]:
    """How much of time a model's embeddings hold.

    `order`: "first A, then B" above the same words with A and B exchanged (chance 50). `which_first`: linear probe for
    the color of a two-event clip's first event (50: knows both colors, not their order). `four_in_order`: the same for
    each of the four events of narrated videos, the mean (25: knows the colors, not their order). `…/patches`: these
    probes on the mean patch token instead of the embedding. `direction`: a caption above the same with the opposite
    motion (chance 50). `probe/motion`: linear probe (chance 25). `retrieval/…`: plain R@1 in a style, and of two-event
    clips by their caption.
    """
    ordered, videos = embedder.clips(synthetic.test_ordered), embedder.clips(synthetic.test)
    right, _ = zip(*synthetic.test_ordered.say_order(TEXT_SEED), strict=True)
    metrics = {
        "order": order_accuracy(embedder, synthetic.test_ordered),
        "retrieval/ordered": recall_at_1(embedder.texts(list(right)), ordered),
        "direction": direction_accuracy(embedder, synthetic.test),
    }
    narrated = synthetic.narrated.first(synthetic.settings.num_probe)
    for name, embed in (("", embedder.clips), ("/patches", embedder.patches)):
        metrics[f"which_first{name}"] = probe_order(embed, synthetic.probe_ordered, synthetic.test_ordered, 1)
        metrics[f"four_in_order{name}"] = probe_order(embed, narrated, synthetic.test_narrated, NUM_TRANSCRIPTS)
    asked = _in_order_of_clips(synthetic)
    for style in (SPOKEN, "caption"):
        texts = embedder.texts(sentences(synthetic.test_attributes, style))
        metrics[f"retrieval/{style}"] = recall_at_1(texts[asked], videos)
    motions = embedder.clips(synthetic.probe), synthetic.probe.labels("motion")
    metrics["probe/motion"] = linear_probe(*motions, videos, synthetic.test.labels("motion"))
    return metrics


def probe_order(embed: Callable[[Clips], np.ndarray], train: Clips, test: Clips, num_events: int) -> float:
    """Percent of the first `num_events` events of the test clips whose color a linear probe reads."""
    features, test_features = embed(train), embed(test)
    places = range(num_events)
    labels = [(train.labels("color", place), test.labels("color", place)) for place in places]
    return float(np.mean([linear_probe(features, own, test_features, others) for own, others in labels]))


def order_accuracy(embedder: Embedder, clips: Clips) -> float:
    """Percent of clips of two events nearer to the caption in their order than to the one with events exchanged."""
    right, wrong = zip(*clips.say_order(TEXT_SEED), strict=True)
    return share_above(embedder.clips(clips), embedder.texts(list(right)), embedder.texts(list(wrong)))


def direction_accuracy(embedder: Embedder, clips: Clips) -> float:
    """Percent of clips of one event nearer to their caption than to the same with the opposite motion."""
    right = [attributes for (attributes,) in clips.events]
    wrong = [Attributes(each.color, each.shape, OPPOSITES[each.motion], each.place) for each in right]
    texts = (
        embedder.texts(sentences(attributes, "caption")) for attributes in (right, wrong)
    )  # the same choice of words
    return share_above(embedder.clips(clips), *texts)


@torch.no_grad()
def sorting_accuracy(embedder: Embedder, clips: Clips) -> float:
    """Percent of transcripts of held-out narrated videos that the sorter puts in their place (chance 100 / K)."""
    model: TVTSv2ForPreTraining = embedder.model.eval()
    texts = clips.say(SPOKEN, TEXT_SEED)
    ids = tokenize(embedder.tokenizer, [text for each in texts for text in each]).unflatten(0, (len(texts), -1))
    right = []
    for start in range(0, len(texts), BATCH_SIZE):
        own = slice(start, start + BATCH_SIZE)
        pixels = to_pixels(clips.frames[own]).to(model.device)
        logits = model(pixel_values_videos=pixels, input_ids=ids[own].to(model.device)).sorting_logits
        right.append((logits.argmax(dim=-1).cpu() == torch.arange(ids.shape[1])).float())
    return 100 * float(torch.cat(right).mean())


def recall_at_1(texts: np.ndarray, videos: np.ndarray) -> float:
    """Text to video: text i belongs to video i; embeddings (V, D)."""
    similarities = texts.astype(np.float64) @ videos.T.astype(np.float64)
    return 100 * float(np.mean(retrieval_ranks(similarities) <= 1))


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Top-1 of a linear classifier on frozen embeddings."""
    features = torch.from_numpy(train)
    classifier = LinearClassifier(features, int(labels.max()) + 1)
    classifier.fit(features, torch.from_numpy(labels), PROBE_PENALTY)
    return 100 * float((classifier.scores(torch.from_numpy(test)).argmax(dim=1).numpy() == test_labels).mean())


def share_above(videos: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> float:
    """Percent of clips nearer to their right text than to their wrong one, all (V, D); a tie counts half."""
    ahead, behind = (videos * right).sum(axis=1), (videos * wrong).sum(axis=1)
    return 100 * float(np.mean((ahead > behind) + 0.5 * (ahead == behind)))
