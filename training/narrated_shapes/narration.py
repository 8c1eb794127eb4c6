"""What a narrator says about an event, as speech recognition hears it and as an editor cleans it up.

The wording of an event depends on what the event shows and on chance, never on the event's place in its video. No word
says "first", "then" or "another", so that text alone cannot tell the order of events.
"""

from dataclasses import dataclass

import numpy as np

from training.narrated_shapes.scene_drawing import Event

SHAPE_NAMES = {
    "circle": ("circle", "ball", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
    "moon": ("moon", "crescent"),
}

# (it …, it is …) pairs
MOTION_PHRASES = {
    "left": (("moves left", "moving left"), ("slides left", "sliding left")),
    "right": (("moves right", "moving right"), ("slides right", "sliding right")),
    "up": (("goes up", "going up"), ("rises", "rising")),
    "down": (("goes down", "going down"), ("sinks", "sinking")),
    "grow": (("grows", "growing"), ("gets bigger", "getting bigger")),
    "shrink": (("shrinks", "shrinking"), ("gets smaller", "getting smaller")),
    "spin": (("spins", "spinning"), ("rotates", "rotating")),
    "bounce": (("bounces", "bouncing"), ("hops", "hopping")),
    "blink": (("blinks", "blinking"), ("flashes", "flashing")),
}

SCENE_PHRASES = {
    "snow": ("on the snow", "in the snow"),
    "grass": ("on the grass", "on the lawn"),
    "sand": ("on the sand", "at the beach"),
    "water": ("on the water", "on the lake"),
    "wall": ("at the wall", "by the bricks"),
    "street": ("on the street", "on the road"),
}

SHOWING = (
    "here is {a} {thing}",
    "look at this {thing}",
    "we have {a} {thing}",
    "there's {a} {thing}",
    "you can see {a} {thing}",
    "that's {a} {thing}",
    "i see {a} {thing}",
    "what a nice {thing}",
)
ACTING = (
    "the {thing} {does}",
    "this {thing} {does}",
    "the {thing} is {doing}",
    "see how the {thing} {does}",
    "watch the {thing} {doing}",
    "it's the {thing} that {does}",
    "the {thing} keeps {doing}",
)
FILLERS = ("um", "uh", "so", "okay", "well", "yeah", "you know", "like", "okay now", "alright")
DROPPED_FILLERS = ("um", "uh", "like")  # an editor takes these out

MISHEARINGS = {
    "red": "read",
    "orange": "oranges",
    "yellow": "hello",
    "green": "grin",
    "turquoise": "tortoise",
    "blue": "blew",
    "purple": "people",
    "pink": "think",
    "white": "wide",
    "black": "back",
    "circle": "circus",
    "ball": "bowl",
    "square": "scare",
    "box": "bucks",
    "triangle": "tangle",
    "star": "stare",
    "cross": "crust",
    "ring": "bring",
    "heart": "hard",
    "moon": "noon",
    "left": "lift",
    "right": "write",
    "grows": "gross",
    "spins": "pins",
    "sinks": "thinks",
    "hops": "hope",
    "rises": "rice",
}
MISHEARING_RATIO = 0.06
REPAIR_RATIO = 0.85  # share of the mis-hearings that the editor repairs
NOISE_WORD_RATIO = 0.03  # entity or empty words that real subtitle files contain


@dataclass(frozen=True)
class SpokenWord:
    """One word of a narration: its time in seconds, as heard, and as cleaned up ("" where the editor drops it)."""

    time: float
    heard: str
    cleaned: str


def narrate(event: Event, scene: str, rng: np.random.Generator) -> list[SpokenWord]:
    """Return the 10 to 20 words spoken during an event, which name its color and shape early and late."""
    sentences = [_sentence(rng.choice(SHOWING), event, rng), _sentence(rng.choice(ACTING), event, rng)]
    if rng.random() < 0.5:
        sentences[0] += f" {rng.choice(SCENE_PHRASES[scene])}"
    if rng.random() < 0.5:
        sentences.reverse()
    words: list[tuple[str, str]] = []
    for sentence in sentences:
        filler = str(rng.choice(FILLERS)) if rng.random() < 0.55 else ""
        words += _hear(filler, sentence, rng)
    return _spread(words, event, rng)


def _sentence(template: str, event: Event, rng: np.random.Generator) -> str:
    does, doing = MOTION_PHRASES[event.motion][rng.integers(len(MOTION_PHRASES[event.motion]))]
    thing = f"{event.color} {rng.choice(SHAPE_NAMES[event.shape])}"
    return template.format(a=article(thing), thing=thing, does=does, doing=doing)


def article(thing: str) -> str:
    """Return "a" or "an"."""
    return "an" if thing[0] in "aeiou" else "a"


def _hear(filler: str, sentence: str, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return the (heard, cleaned) words of one sentence and the filler before it."""
    said = sentence.split()
    kept_filler = [] if filler in DROPPED_FILLERS else filler.split()
    cleaned = kept_filler + said
    if kept_filler:
        cleaned[len(kept_filler) - 1] += ","
    cleaned[0] = cleaned[0].capitalize()
    cleaned[-1] += "!" if rng.random() < 0.1 else "."
    pairs = [] if kept_filler else [(word, "") for word in filler.split()]
    for word, clean in zip(filler.split() * bool(kept_filler) + said, cleaned, strict=True):
        heard = word
        if word in MISHEARINGS and rng.random() < MISHEARING_RATIO:
            heard = MISHEARINGS[word]
            if rng.random() > REPAIR_RATIO:
                clean = clean.lower().replace(word, heard)
        elif "'" in word and rng.random() < 0.1:
            heard = word.replace("'", "â€™")  # UTF-8 read as Windows-1252
        pairs.append((heard, clean))
    if rng.random() < NOISE_WORD_RATIO:
        pairs.insert(0, ("&gt;&gt;", ""))
    if rng.random() < NOISE_WORD_RATIO:
        pairs.append(("", ""))
    return pairs


def _spread(words: list[tuple[str, str]], event: Event, rng: np.random.Generator) -> list[SpokenWord]:
    """Return the words at irregular times, longer words taking longer, all within the event."""
    weights = np.array([2 + len(heard) for heard, _ in words]) * rng.uniform(0.7, 1.3, len(words))
    starts = np.concatenate([[0.0], np.cumsum(weights)[:-1]]) / weights.sum()
    first, last = event.start_seconds + 0.1, event.end_seconds - 0.2
    times = first + (last - first) * starts
    return [
        SpokenWord(time=round(float(time), 3), heard=heard, cleaned=cleaned)
        for time, (heard, cleaned) in zip(times, words, strict=True)
    ]
