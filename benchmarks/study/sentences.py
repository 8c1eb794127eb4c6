"""Language styles: one event, several ways to say it. Each names color, shape, motion (if any) and place.

| style | such as |
|---|---|
| asr | um so the red stare moves left uh on the grass |
| caption | A red star moving left on the grass. |
| alt_text | grass, red star, moving left |
| label | red star left grass |
| passive | a red star is being pushed left on the grass |
| paraphrase | crimson pentagram drifting westward across meadow |

`asr` is what narrated videos say, and no written source: mini-CLIP is trained on the other five. Of these,
post-pretraining sees `caption` in some arms and the rest never. The paraphrase style has a vocabulary of its own:
none of its words occurs in another style.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.narrated_shapes.narration import FILLERS, MISHEARINGS

SPOKEN = "asr"
MISHEARING_RATIO = 0.15  # of the spoken words that have a double
FILLER_RATIO = 0.7  # of the two places in a spoken sentence where a filler may stand


@dataclass(frozen=True)
class Attributes:
    """What one event shows. motion None: a still picture without a trace of motion."""

    color: str
    shape: str
    motion: str | None
    place: str


SHAPE_NAMES = {
    "circle": ("circle", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
}
# What it does, is doing, has done to it.
MOTIONS = {
    "left": ("moves left", "moving left", "pushed left"),
    "right": ("moves right", "moving right", "pushed right"),
    "up": ("goes up", "going up", "lifted up"),
    "down": ("goes down", "going down", "let down"),
    None: ("sits", "sitting", "kept"),
}
PLACE_PHRASES = {
    "night": ("at night", "in the night"),
    "grass": ("on the grass", "in the grass"),
    "wall": ("on the wall", "at the wall"),
}
SAYINGS = (
    "the {thing} {does}",
    "this {thing} {does}",
    "look at the {thing} it {does}",
    "here the {thing} {does}",
    "we have this {thing} that {does}",
)
CAPTIONS = ("A {thing} {doing} {where}.", "A {thing} that {does} {where}.", "Photo of a {thing} {doing} {where}.")
PASSIVE = ("a {thing} is being {done} {where}", "the {thing} was {done} by someone {where}")
# Spoken at times instead of what is to be seen.
CHATTER = (
    "don't forget to subscribe",
    "thanks for watching guys",
    "let me know in the comments",
    "hit the bell for more",
    "that was a lot of fun",
    "i did this all day yesterday",
)

OTHER_COLORS = {
    "red": ("crimson", "scarlet"),
    "yellow": ("golden", "lemon"),
    "green": ("emerald", "olive"),
    "turquoise": ("teal", "cyan"),
    "blue": ("azure", "navy"),
    "purple": ("violet", "lilac"),
    "pink": ("rose", "magenta"),
    "white": ("ivory", "pale"),
}
OTHER_SHAPES = {
    "circle": ("sphere", "globe"),
    "square": ("cube", "block"),
    "triangle": ("wedge", "pyramid"),
    "star": ("pentagram", "asterisk"),
    "cross": ("crucifix", "intersection"),
    "ring": ("donut", "loop"),
}
OTHER_MOTIONS = {
    "left": ("drifting westward", "sailing westward"),
    "right": ("drifting eastward", "sailing eastward"),
    "up": ("ascending", "soaring"),
    "down": ("descending", "falling"),
    None: ("resting", "idle"),
}
OTHER_PLACES = {
    "night": ("under darkness", "amid darkness"),
    "grass": ("across meadow", "amid meadow"),
    "wall": ("across masonry", "amid masonry"),
}
PARAPHRASES = ("{color} {shape} {doing} {where}", "behold {color} {shape}, {doing} {where}")


def _choose(options, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _parts(attributes: Attributes, rng: np.random.Generator) -> dict[str, str]:
    """The phrases that all styles but the paraphrase share."""
    does, doing, done = MOTIONS[attributes.motion]
    thing = f"{attributes.color} {_choose(SHAPE_NAMES[attributes.shape], rng)}"
    where = _choose(PLACE_PHRASES[attributes.place], rng)
    return {"thing": thing, "does": does, "doing": doing, "done": done, "where": where}


def _caption(attributes: Attributes, rng: np.random.Generator) -> str:
    return _choose(CAPTIONS, rng).format(**_parts(attributes, rng))


def _alt_text(attributes: Attributes, rng: np.random.Generator) -> str:
    own = _parts(attributes, rng)
    parts = [own["thing"], attributes.place, *([own["doing"]] if attributes.motion else [])]
    return ", ".join(parts[number] for number in rng.permutation(len(parts)))


def _label(attributes: Attributes, rng: np.random.Generator) -> str:
    return " ".join(filter(None, (attributes.color, attributes.shape, attributes.motion, attributes.place)))


def _asr(attributes: Attributes, rng: np.random.Generator) -> str:
    own = _parts(attributes, rng)
    parts = [_choose(SAYINGS, rng).format(**own), own["where"]]
    parts = [f"{_choose(FILLERS, rng)} {part}" if rng.random() < FILLER_RATIO else part for part in parts]
    words = " ".join(parts).split()
    return " ".join(MISHEARINGS[w] if w in MISHEARINGS and rng.random() < MISHEARING_RATIO else w for w in words)


def _passive(attributes: Attributes, rng: np.random.Generator) -> str:
    return _choose(PASSIVE, rng).format(**_parts(attributes, rng))


def _paraphrase(attributes: Attributes, rng: np.random.Generator) -> str:
    return _choose(PARAPHRASES, rng).format(
        color=_choose(OTHER_COLORS[attributes.color], rng),
        shape=_choose(OTHER_SHAPES[attributes.shape], rng),
        doing=_choose(OTHER_MOTIONS[attributes.motion], rng),
        where=_choose(OTHER_PLACES[attributes.place], rng),
    )


# The wording depends on the attributes and on chance, on nothing else.
STYLES: dict[str, Callable[[Attributes, np.random.Generator], str]] = {
    SPOKEN: _asr,
    "caption": _caption,
    "alt_text": _alt_text,
    "label": _label,
    "passive": _passive,
    "paraphrase": _paraphrase,
}
WRITTEN = tuple(style for style in STYLES if style != SPOKEN)  # what mini-CLIP is trained on


def say_order(first: Attributes, second: Attributes, rng: np.random.Generator) -> tuple[str, str]:
    """A caption of two events in their order, and the same words with the events exchanged."""
    phrases = ["a {thing} {doing}".format(**_parts(attributes, rng)) for attributes in (first, second)]
    template = _choose(("First {}, then {}.", "{} and after that {}.", "{} before {}."), rng)
    return template.format(*phrases), template.format(*reversed(phrases))
