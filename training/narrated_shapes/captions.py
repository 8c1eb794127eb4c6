"""Captions of single events in the manner of a stock-footage site, and text queries for one attribute.

Most training captions name neither color nor scene, so that these do not suffice to tell videos apart: "a star", "a
thing rising" or "a star rising" can be matched to its video by shape and motion alone.
"""

from collections.abc import Collection

import numpy as np

from training.narrated_shapes.narration import MOTION_PHRASES, SCENE_PHRASES, SHAPE_NAMES, article
from training.narrated_shapes.scene_drawing import COLORS, MOTIONS, SCENES, SHAPES, SPEEDS, Event

ATTRIBUTES = {
    "color": tuple(COLORS),
    "scene": tuple(SCENES),
    "shape": tuple(SHAPES),
    "motion": MOTIONS,
    "speed": SPEEDS,
}
EVERYTHING_RATIO, ACTION_RATIO = 0.3, 0.6  # share of captions that name everything; shape and motion at most
ACTIONS, ACTION_SHARES = (("shape", "motion"), ("motion",), ("shape",)), (0.5, 0.3, 0.2)

ADVERBS = {"slow": ("slowly",), "fast": ("quickly", "fast")}
NOUNS = ("thing", "shape", "object")  # for a shape that is not named
CAPTIONS = (
    "{a} {thing} {doing} {where}",
    "{thing} {doing} {where}",
    "{thing} that {does} {where}",
    "{where} {a} {thing} {does}",
    "close up of {a} {thing} {doing} {where}",
)
STILL_CAPTIONS = ("{a} {thing} {where}", "{thing} {where}", "{where} {a} {thing}", "close up of {a} {thing} {where}")


def draw_named(rng: np.random.Generator) -> set[str]:
    """Return the attributes that a training caption names: everything, shape and motion at most, or any of them."""
    kind = rng.random()
    if kind < EVERYTHING_RATIO:
        return set(ATTRIBUTES)
    if kind < EVERYTHING_RATIO + ACTION_RATIO:
        named = set(ACTIONS[rng.choice(len(ACTIONS), p=ACTION_SHARES)])
        return named | {"speed"} if "motion" in named and rng.random() < 0.5 else named
    while True:
        named = {attribute for attribute in ATTRIBUTES if rng.random() < 0.7}
        if "motion" not in named:
            named.discard("speed")
        if named:
            return named


def describe(event: Event, scene: str, rng: np.random.Generator, named: Collection[str] = tuple(ATTRIBUTES)) -> str:
    """Return a caption of the event that names the attributes `named`, by default all."""
    noun = rng.choice(SHAPE_NAMES[event.shape] if "shape" in named else NOUNS)
    thing = f"{event.color} {noun}" if "color" in named else str(noun)
    does, doing = MOTION_PHRASES[event.motion][rng.integers(len(MOTION_PHRASES[event.motion]))]
    if "speed" in named:
        adverb = rng.choice(ADVERBS[event.speed])
        order = "{0} {1}" if rng.random() < 0.5 else "{1} {0}"
        does, doing = order.format(does, adverb), order.format(doing, adverb)
    where = rng.choice(SCENE_PHRASES[scene]) if "scene" in named else ""
    template = str(rng.choice(CAPTIONS if "motion" in named else STILL_CAPTIONS))
    words = template.format(a=article(thing), thing=thing, does=does, doing=doing, where=where).split()
    caption = " ".join(words)
    return caption[0].upper() + caption[1:] + "." * int(rng.random() < 0.5)


def attribute_queries(attribute: str, value: str) -> list[str]:
    """Return texts that name one attribute's value and nothing else, such as "a thing moving left"."""
    if attribute == "shape":
        return [f"{article(name)} {name}" for name in SHAPE_NAMES[value]]
    if attribute == "color":
        return [f"{article(value)} {value} {noun}" for noun in NOUNS]
    phrases = {
        "scene": lambda: SCENE_PHRASES[value],
        "motion": lambda: [doing for _, doing in MOTION_PHRASES[value]],
        "speed": lambda: [f"moving {adverb}" for adverb in ADVERBS[value]],
    }[attribute]()
    return [f"{article(noun)} {noun} {phrase}" for noun in NOUNS for phrase in phrases]
