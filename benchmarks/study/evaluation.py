"""What a model of the study is evaluated in: language per register, drift of its texts, and time.

Every function returns metrics by name. Test sentences are the same for every model of a seed.
"""

import numpy as np
import torch

from benchmarks.study.embedder import BATCH_SIZE, Embedder
from benchmarks.study.metrics import (
    linear_cka,
    linear_probe,
    mean_cosine,
    neighbors_kept,
    recall_at_1,
    recognition,
    share_above,
)
from benchmarks.study.registers import REGISTERS, SPOKEN, UNSEEN, Facts
from benchmarks.study.training_loop import to_pixels, tokenize
from benchmarks.study.world import CLASSES, Clips, World
from modeling_tvtsv2 import TVTSv2ForPreTraining

TEXT_SEED = 12345
RECOGNIZED = ("color", "shape", "motion")
OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}


def sentences(facts: list[Facts], register: str) -> list[str]:
    """What a register says of each."""
    rng = np.random.default_rng([TEXT_SEED, list(REGISTERS).index(register)])
    return [REGISTERS[register](each, rng) for each in facts]


def evaluate_language(embedder: Embedder, world: World) -> dict[str, float]:
    """Zero-shot retrieval and recognition per register and their means over unseen ones, and linear probes.

    Retrieval asks for the held-out combinations; a class to recognize is the mean of a sentence for each combination.
    """
    videos, train = embedder.clips(world.test), embedder.clips(world.probe)
    metrics = {}
    every = [*world.test_facts, *world.train_facts]
    asked = _in_order_of_clips(world)
    for register in REGISTERS:
        texts = embedder.texts(sentences(every, register))
        metrics[f"retrieval/{register}"] = recall_at_1(texts[asked], videos)
        for fact in RECOGNIZED:
            labels = np.array([CLASSES[fact].index(getattr(each, fact)) for each in every])
            metrics[f"{fact}/{register}"] = recognition(videos, world.test.labels(fact), texts, labels)
    for kind in ("retrieval", *RECOGNIZED):
        metrics[f"{kind}/unseen"] = float(np.mean([metrics[f"{kind}/{register}"] for register in UNSEEN]))
    for fact in RECOGNIZED:
        metrics[f"probe/{fact}"] = linear_probe(train, world.probe.labels(fact), videos, world.test.labels(fact))
    return metrics


def _in_order_of_clips(world: World) -> np.ndarray:
    """int (V,): where the facts of each test clip stand among the world's held-out combinations."""
    return np.array([world.test_facts.index(facts) for (facts,) in world.test.events])


def evaluate_drift(embedder: Embedder, start: Embedder, world: World) -> dict[str, float]:
    """How far the embeddings of held-out sentences moved from the start's, per register.

    `cosine`: mean between a sentence's embeddings before and after (1: the same direction). `cka`: linear centered
    kernel alignment of both sets (1: the same up to a rotation and a scale). `neighbors`: share of a sentence's 10
    nearest among the register's sentences that are still among its 10 nearest.
    """
    metrics = {}
    functions = {"cosine": mean_cosine, "cka": linear_cka, "neighbors": neighbors_kept}
    for register in REGISTERS:
        texts = sentences(world.test_facts, register)
        now, before = embedder.texts(texts), start.texts(texts)
        metrics |= {f"{name}/{register}": function(now, before) for name, function in functions.items()}
    for name in functions:
        metrics[f"{name}/unseen"] = float(np.mean([metrics[f"{name}/{register}"] for register in UNSEEN]))
    return metrics


def evaluate_time(embedder: Embedder, world: World) -> dict[str, float]:
    """How much of time a model's embeddings hold.

    `order`: "first A, then B" above the same words with A and B exchanged (chance 50). `which_first`: linear probe for
    the color of a two-event clip's first event (50: knows both colors, not their order). `direction`: a caption above
    the same with the opposite motion (chance 50). `probe/motion`: linear probe (chance 25). `retrieval/…`: plain
    R@1 in a register, and of two-event clips by their caption.
    """
    ordered, videos = embedder.clips(world.test_ordered), embedder.clips(world.test)
    right, _ = zip(*world.test_ordered.say_order(TEXT_SEED), strict=True)
    probe = embedder.clips(world.probe_ordered), world.probe_ordered.labels("color")
    metrics = {
        "order": order_accuracy(embedder, world.test_ordered),
        "which_first": linear_probe(*probe, ordered, world.test_ordered.labels("color")),
        "retrieval/ordered": recall_at_1(embedder.texts(list(right)), ordered),
        "direction": direction_accuracy(embedder, world.test),
    }
    asked = _in_order_of_clips(world)
    for register in (SPOKEN, "caption"):
        texts = embedder.texts(sentences(world.test_facts, register))
        metrics[f"retrieval/{register}"] = recall_at_1(texts[asked], videos)
    motions = embedder.clips(world.probe), world.probe.labels("motion")
    metrics["probe/motion"] = linear_probe(*motions, videos, world.test.labels("motion"))
    return metrics


def order_accuracy(embedder: Embedder, clips: Clips) -> float:
    """Percent of clips of two events nearer to the caption in their order than to the one with events exchanged."""
    right, wrong = zip(*clips.say_order(TEXT_SEED), strict=True)
    return share_above(embedder.clips(clips), embedder.texts(list(right)), embedder.texts(list(wrong)))


def direction_accuracy(embedder: Embedder, clips: Clips) -> float:
    """Percent of clips of one event nearer to their caption than to the same with the opposite motion."""
    right = [facts for (facts,) in clips.events]
    wrong = [Facts(each.color, each.shape, OPPOSITES[each.motion], each.place) for each in right]
    texts = (embedder.texts(sentences(facts, "caption")) for facts in (right, wrong))  # the same choice of words
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
        logits = model(pixel_values_videos=to_pixels(clips.frames[own]), input_ids=ids[own]).sorting_logits
        right.append((logits.argmax(dim=-1) == torch.arange(ids.shape[1])).float())
    return 100 * float(torch.cat(right).mean())
