"""What is measured of a trained model: percent, but for drift, which lies in [0, 1].

Axes: V clips, C classes, D width of embeddings.
"""

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import CLIPModel, PreTrainedTokenizerFast

from benchmarks.protocols.linear_classifier import LinearClassifier
from benchmarks.protocols.prompts import class_embeddings
from benchmarks.protocols.recognition_figures import label_ranks
from benchmarks.protocols.retrieval_figures import right_candidate_ranks
from benchmarks.study.registers import OTHER_MOTIONS, OTHER_SHAPES, PASSIVE_MOTIONS, REGISTERS, UNSEEN
from benchmarks.study.training_loop import evaluation_pixels, tokenize
from benchmarks.study.world import Clips, World
from modeling_tvtsv2 import TVTSv2ForPreTraining
from training.narration import MOTION_PHRASES, SHAPE_NAMES

Model = CLIPModel | TVTSv2ForPreTraining
BATCH_SIZE = 128
PROBE_PENALTIES = (1.0, 1e-1, 1e-2, 1e-3)  # one after the other, the last decides
NUM_NEIGHBOURS = 10
TEXT_SEED = 12345  # test sentences are the same for every model of a seed

# How a register would call a class; {} stands for the class's name in that register.
SHAPE_PROMPTS = {
    "asr": "so this is the {}",
    "caption": "A {} on the street.",
    "alt_text": "{}, moving, street",
    "label": "{}",
    "passive": "a {} is being moved",
    "paraphrase": "behold {}",
}
MOTION_PROMPTS = {
    "asr": "um the star {}",
    "caption": "A star {}.",
    "alt_text": "star, {}",
    "label": "star {}",
    "passive": "a star is being {}",
    "paraphrase": "pentagram {}",
}


def class_names(fact: str, names: list[str], register: str) -> tuple[str, ...]:
    """What a register calls classes of `"shape"` or `"motion"`."""
    if register == "label":
        return tuple(names)
    if fact == "shape":
        table = OTHER_SHAPES if register == "paraphrase" else SHAPE_NAMES
        return tuple(table[name][0] for name in names)
    if register == "paraphrase":
        return tuple(OTHER_MOTIONS[name][0] for name in names)
    if register == "passive":
        return tuple(PASSIVE_MOTIONS[name][0] for name in names)
    return tuple(MOTION_PHRASES[name][0][0 if register == "asr" else 1] for name in names)


class Embedder:
    """Normalised embeddings, numpy float32, of a model as it is."""

    def __init__(self, model: Model, tokenizer: PreTrainedTokenizerFast, num_frames: int):
        self.model, self.tokenizer, self.num_frames = model.eval(), tokenizer, num_frames

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        """(len(texts), D)."""
        parts = [texts[i : i + 2 * BATCH_SIZE] for i in range(0, len(texts), 2 * BATCH_SIZE)]
        embeds = [self.model.get_text_features(tokenize(self.tokenizer, part)).pooler_output for part in parts]
        return normalize(torch.cat(embeds), dim=-1).numpy()

    @torch.no_grad()
    def clips(self, clips: Clips) -> np.ndarray:
        """(V, D); a CLIP's frame embeddings are averaged."""
        pixels = evaluation_pixels(clips, self.num_frames)
        embeds = []
        for part in pixels.split(BATCH_SIZE):
            if isinstance(self.model, CLIPModel):
                frames = self.model.get_image_features(part.flatten(0, 1)).pooler_output
                embeds.append(normalize(frames, dim=-1).unflatten(0, part.shape[:2]).mean(dim=1))
            else:
                embeds.append(self.model.get_video_features(part).pooler_output)
        return normalize(torch.cat(embeds), dim=-1).numpy()


def recall_at_1(texts: np.ndarray, videos: np.ndarray) -> float:
    """Text to video: text i belongs to video i; embeddings (V, D)."""
    ranks = right_candidate_ranks(
        texts.astype(np.float64) @ videos.T.astype(np.float64), np.eye(len(texts), dtype=bool)
    )
    return 100 * float(np.mean(ranks <= 1))


def measure_language(embedder: Embedder, world: World) -> dict[str, float]:
    """Zero-shot retrieval and recognition per register and their means over unseen ones, and linear probes."""
    videos = embedder.clips(world.test)
    figures = {}
    for register in REGISTERS:
        texts = [each[0] for each in world.test.say(register, TEXT_SEED)]
        figures[f"retrieval/{register}"] = recall_at_1(embedder.texts(texts), videos)
        for fact, prompts in (("shape", SHAPE_PROMPTS), ("motion", MOTION_PROMPTS)):
            classes = class_embeddings(
                embedder.texts, [prompts[register]], class_names(fact, world.classes[fact], register)
            )
            right = label_ranks(videos @ classes.T, world.test.labels(fact, world.classes[fact])) == 1
            figures[f"{fact}/{register}"] = 100 * float(right.mean())
    for kind in ("retrieval", "shape", "motion"):
        figures[f"{kind}/unseen"] = float(np.mean([figures[f"{kind}/{register}"] for register in UNSEEN]))
    train = embedder.clips(world.probe)
    for fact in ("shape", "motion"):
        own, other = (clips.labels(fact, world.classes[fact]) for clips in (world.probe, world.test))
        figures[f"probe/{fact}"] = linear_probe(train, own, videos, other, len(world.classes[fact]))
    return figures


def linear_probe(train: np.ndarray, labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, num: int) -> float:
    """Top-1 of a linear classifier of `num` classes on frozen embeddings."""
    classifier = LinearClassifier(train, num)
    for penalty in PROBE_PENALTIES:
        classifier.fit(train, labels, penalty)
    return 100 * float((classifier.scores(test).argmax(axis=1) == test_labels).mean())


def measure_drift(embedder: Embedder, start: Embedder, world: World) -> dict[str, float]:
    """How far the embeddings of held-out sentences moved from the start's, per register.

    `cosine`: mean between a sentence's embeddings before and after (1: the same direction). `cka`: linear centred
    kernel alignment of both sets (1: the same up to a rotation and a scale). `neighbours`: share of a sentence's 10
    nearest among the register's sentences that are still among its 10 nearest.
    """
    figures = {}
    for register in REGISTERS:
        texts = [each[0] for each in world.test.say(register, TEXT_SEED)]
        now, before = embedder.texts(texts), start.texts(texts)
        figures[f"cosine/{register}"] = float((now * before).sum(axis=1).mean())
        figures[f"cka/{register}"] = linear_cka(now, before)
        figures[f"neighbours/{register}"] = neighbours_kept(now, before)
    for kind in ("cosine", "cka", "neighbours"):
        figures[f"{kind}/unseen"] = float(np.mean([figures[f"{kind}/{register}"] for register in UNSEEN]))
    return figures


def linear_cka(one: np.ndarray, other: np.ndarray) -> float:
    """Linear centred kernel alignment of two (N, D) sets of embeddings of the same things, in [0, 1].

    Source: Kornblith et al., "Similarity of Neural Network Representations Revisited", 2019.
    """
    one, other = (each.astype(np.float64) - each.mean(axis=0, dtype=np.float64) for each in (one, other))
    shared = np.square(one.T @ other).sum()
    return float(shared / np.sqrt(np.square(one.T @ one).sum() * np.square(other.T @ other).sum()))


def neighbours_kept(now: np.ndarray, before: np.ndarray, num_neighbours: int = NUM_NEIGHBOURS) -> float:
    """Mean share, in [0, 1], of the nearest neighbours by cosine that two (N, D) sets have in common."""
    nearest = []
    for embeds in (now, before):
        similarities = embeds @ embeds.T
        np.fill_diagonal(similarities, -np.inf)
        nearest.append(np.argsort(-similarities, axis=1, kind="stable")[:, :num_neighbours])
    shared = [len(np.intersect1d(one, other)) for one, other in zip(*nearest, strict=True)]
    return float(np.mean(shared) / num_neighbours)


OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


def measure_time(embedder: Embedder, world: World) -> dict[str, float]:
    """How much of time a model's embeddings hold.

    `order`: "first A, then B" above the same words with A and B exchanged (chance 50). `which_first`: linear probe for
    the colour of a two-event clip's first event (50: knows both, not their order). `direction`: a caption above the
    same with the opposite motion, clips that have one (chance 50). `probe/direction`: linear probe among all such
    motions. `retrieval/…`: plain R@1 in a register, and of two-event clips by their caption.
    """
    ordered = embedder.clips(world.test_ordered)
    right, wrong = (embedder.texts(list(texts)) for texts in zip(*world.test_ordered.say_order(TEXT_SEED), strict=True))
    figures = {"order": _share_above((ordered * right).sum(axis=1), (ordered * wrong).sum(axis=1))}
    figures["retrieval/ordered"] = recall_at_1(right, ordered)
    colors = world.classes["color"]
    probe = embedder.clips(world.probe_ordered), world.probe_ordered.labels("color", colors)
    figures["which_first"] = linear_probe(*probe, ordered, world.test_ordered.labels("color", colors), len(colors))

    videos = embedder.clips(world.test)
    for register in ("asr", "caption"):
        texts = [each[0] for each in world.test.say(register, TEXT_SEED)]
        figures[f"retrieval/{register}"] = recall_at_1(embedder.texts(texts), videos)
    figures["direction"] = _direction_of_motion(embedder, world.test, videos)
    figures["probe/direction"] = _probe_direction(embedder, world, videos)
    return figures


def _share_above(right: np.ndarray, wrong: np.ndarray) -> float:
    """Percent of pairs in which the right one is ahead; a tie counts half."""
    return 100 * float(np.mean((right > wrong) + 0.5 * (right == wrong)))


def _direction_of_motion(embedder: Embedder, clips: Clips, videos: np.ndarray) -> float:
    rng = np.random.default_rng(TEXT_SEED)
    numbers, right, wrong = [], [], []
    for number, ((event,), scene) in enumerate(zip(clips.events, clips.scenes, strict=True)):
        if event.motion in OPPOSITES:
            seed = rng.integers(2**31)  # the same choice of words for both
            opposite = type(event)(event.color, event.shape, OPPOSITES[event.motion], 0.0, 1.0)
            for texts, each in ((right, event), (wrong, opposite)):
                texts.append(REGISTERS["caption"](each, scene, np.random.default_rng(seed)))
            numbers.append(number)
    own = videos[numbers]
    return _share_above((own * embedder.texts(right)).sum(axis=1), (own * embedder.texts(wrong)).sum(axis=1))


def _probe_direction(embedder: Embedder, world: World, videos: np.ndarray) -> float:
    directions = [motion for motion in world.classes["motion"] if motion in OPPOSITES]
    parts = []
    for clips, embeds in ((world.probe, embedder.clips(world.probe)), (world.test, videos)):
        labels = clips.labels("motion", world.classes["motion"])
        has_direction = np.array([world.classes["motion"][label] in OPPOSITES for label in labels])
        names = [world.classes["motion"][label] for label in labels[has_direction]]
        parts += [embeds[has_direction], np.array([directions.index(name) for name in names])]
    return linear_probe(*parts, len(directions))


@torch.no_grad()
def sorting_accuracy(model: TVTSv2ForPreTraining, tokenizer: PreTrainedTokenizerFast, clips: Clips) -> float:
    """Percent of transcripts of held-out narrated videos that the sorter puts in their place (chance 100 / K)."""
    model.eval()
    texts = clips.say("asr", TEXT_SEED)
    ids = tokenize(tokenizer, [text for each in texts for text in each]).unflatten(0, (len(texts), -1))
    pixels = evaluation_pixels(clips, model.config.vision_config.num_frames)
    right = []
    for part, own in zip(pixels.split(BATCH_SIZE), ids.split(BATCH_SIZE), strict=True):
        logits = model(pixel_values_videos=part, input_ids=own).sorting_logits
        right.append((logits.argmax(dim=-1) == torch.arange(ids.shape[1])).float())
    return 100 * float(torch.cat(right).mean())
