"""Language registers: one event, several ways to say it. Every register names colour, shape, motion and scene.

| register | such as |
|---|---|
| caption | A red star moving left on the snow. |
| alt_text | snow, red star, moving left |
| label | red star left snow |
| asr | um so the red stare moves left uh on the snow |
| passive | a red star is being pushed left on the snow |
| paraphrase | crimson pentagram drifting westward across frost |

The paraphrase register has a vocabulary of its own: none of its words for the four facts occurs in another register.
"""

from collections.abc import Callable

import numpy as np

from training.narration import (
    ACTING,
    FILLERS,
    MISHEARING_RATIO,
    MISHEARINGS,
    MOTION_PHRASES,
    SCENE_PHRASES,
    SHAPE_NAMES,
    describe,
)
from training.scene_drawing import Event

FILLER_RATIO = 0.7  # of the two places in a spoken sentence where a filler may stand

PASSIVE_MOTIONS = {
    "left": ("pushed left", "moved to the left"),
    "right": ("pushed right", "moved to the right"),
    "up": ("lifted up", "raised"),
    "down": ("lowered", "let down"),
    "grow": ("made bigger", "enlarged"),
    "shrink": ("made smaller", "reduced"),
    "spin": ("turned around", "rotated"),
    "bounce": ("bounced", "thrown up again and again"),
    "blink": ("switched on and off", "made to blink"),
}
PASSIVE = (
    "{a} {thing} is being {done} {where}",
    "{where} {a} {thing} was {done}",
    "the {thing} gets {done} by someone {where}",
)

OTHER_COLORS = {
    "red": ("crimson", "scarlet"),
    "orange": ("tangerine", "amber"),
    "yellow": ("golden", "lemon"),
    "green": ("emerald", "olive"),
    "turquoise": ("teal", "cyan"),
    "blue": ("azure", "navy"),
    "purple": ("violet", "lilac"),
    "pink": ("rose", "magenta"),
    "white": ("ivory", "pale"),
    "black": ("ebony", "dark"),
}
OTHER_SHAPES = {
    "circle": ("sphere", "globe"),
    "square": ("cube", "block"),
    "triangle": ("wedge", "pyramid"),
    "star": ("pentagram", "asterisk"),
    "cross": ("crucifix", "x"),
    "ring": ("donut", "loop"),
    "heart": ("valentine", "love sign"),
    "moon": ("sickle", "banana"),
}
OTHER_MOTIONS = {
    "left": ("drifting westward", "sailing westward"),
    "right": ("drifting eastward", "sailing eastward"),
    "up": ("ascending", "soaring"),
    "down": ("descending", "falling"),
    "grow": ("expanding", "swelling"),
    "shrink": ("contracting", "dwindling"),
    "spin": ("twirling", "whirling"),
    "bounce": ("leaping", "springing"),
    "blink": ("flickering", "twinkling"),
}
OTHER_SCENES = {
    "snow": ("across frost", "amid ice"),
    "grass": ("across meadow", "amid pasture"),
    "sand": ("across dunes", "amid desert"),
    "water": ("across pond", "amid sea"),
    "wall": ("across masonry", "amid stonework"),
    "street": ("across asphalt", "amid pavement"),
}
PARAPHRASES = (
    "{color} {shape} {doing} {where}",
    "{where}, {color} {shape} {doing}",
    "behold {color} {shape}, {doing} {where}",
)


def _choose(options, rng: np.random.Generator):
    return options[rng.integers(len(options))]


def _thing(event: Event, rng: np.random.Generator) -> tuple[str, str]:
    """An article and what is seen, such as ("a", "red ball")."""
    return "an" if event.color[0] in "aeiou" else "a", f"{event.color} {_choose(SHAPE_NAMES[event.shape], rng)}"


def _caption(event: Event, scene: str, rng: np.random.Generator) -> str:
    return describe(event, scene, rng)


def _alt_text(event: Event, scene: str, rng: np.random.Generator) -> str:
    parts = [_thing(event, rng)[1], _choose(MOTION_PHRASES[event.motion], rng)[1], scene]
    return ", ".join(parts[place] for place in rng.permutation(3))


def _label(event: Event, scene: str, rng: np.random.Generator) -> str:
    return f"{event.color} {event.shape} {event.motion} {scene}"


def _asr(event: Event, scene: str, rng: np.random.Generator) -> str:
    does, doing = _choose(MOTION_PHRASES[event.motion], rng)
    said = _choose(ACTING, rng).format(thing=_thing(event, rng)[1], does=does, doing=doing)
    parts = [said, _choose(SCENE_PHRASES[scene], rng)]
    parts = [f"{_choose(FILLERS, rng)} {part}" if rng.random() < FILLER_RATIO else part for part in parts]
    words = " ".join(parts).split()
    heard = [MISHEARINGS[word] if word in MISHEARINGS and rng.random() < MISHEARING_RATIO else word for word in words]
    return " ".join(heard)


def _passive(event: Event, scene: str, rng: np.random.Generator) -> str:
    article, thing = _thing(event, rng)
    done, where = _choose(PASSIVE_MOTIONS[event.motion], rng), _choose(SCENE_PHRASES[scene], rng)
    return _choose(PASSIVE, rng).format(a=article, thing=thing, done=done, where=where)


def _paraphrase(event: Event, scene: str, rng: np.random.Generator) -> str:
    return _choose(PARAPHRASES, rng).format(
        color=_choose(OTHER_COLORS[event.color], rng),
        shape=_choose(OTHER_SHAPES[event.shape], rng),
        doing=_choose(OTHER_MOTIONS[event.motion], rng),
        where=_choose(OTHER_SCENES[scene], rng),
    )


# Each says what an event in a scene shows; the wording depends on nothing else but chance.
REGISTERS: dict[str, Callable[[Event, str, np.random.Generator], str]] = {
    "asr": _asr,
    "caption": _caption,
    "alt_text": _alt_text,
    "label": _label,
    "passive": _passive,
    "paraphrase": _paraphrase,
}
# What post-pretraining never sees, with or without captions.
UNSEEN = ("alt_text", "label", "passive", "paraphrase")


def say_order(first: Event, second: Event, rng: np.random.Generator) -> tuple[str, str]:
    """A caption of two events in their order, and the same words with the events exchanged."""
    phrases = []
    for event in (first, second):
        article, thing = _thing(event, rng)
        phrases.append(f"{article} {thing} {_choose(MOTION_PHRASES[event.motion], rng)[1]}")
    template = _choose(("first {}, then {}", "{} and after that {}", "{} before {}"), rng)
    return template.format(*phrases), template.format(*reversed(phrases))
