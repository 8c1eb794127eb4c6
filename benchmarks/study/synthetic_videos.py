"""The study's clips: events drawn straight into arrays. No video file is written or decoded.

Axes: V clips, E events of a clip, T frames of a clip, S height and width in pixels.

The combinations of color, shape, motion and place are divided once: those of the test clips occur in no training clip
and in no sentence that a model is trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from benchmarks.study.drawing import DIRECTIONS, GRID_STEP, ICON_SIZE, PLACES, Instants, draw_frames
from benchmarks.study.sentences import CHATTER, OTHER_COLORS, SHAPE_NAMES, SPOKEN, STYLES, Attributes, say_order
from benchmarks.study.settings import VideoSettings

CLASSES = {
    "color": tuple(OTHER_COLORS),
    "shape": tuple(SHAPE_NAMES),
    "motion": tuple(DIRECTIONS),
    "place": tuple(PLACES),
}
NUM_TRANSCRIPTS = 4  # K, events of a narrated video
TEST_RATIO = 0.25  # of all combinations of attributes
LONG_EXPOSURES = 0.5  # of the still pictures: they show a motion by its trail
# Every kind of clips has a generator of its own.
_KINDS = (
    "stills",
    "narrated",
    "captioned",
    "ordered",
    "test",
    "probe",
    "test_ordered",
    "probe_ordered",
    "test_narrated",
)


@dataclass(frozen=True)
class Clips:
    """Clips of one kind.

    frames: uint8 (V, T, S, S, 3) RGB.
    events: E of each clip, in order of time.
    """

    frames: np.ndarray
    events: list[tuple[Attributes, ...]]

    def say(self, style: str, seed: int) -> list[list[str]]:
        """V lists of E sentences in a style, the same for the same seed."""
        rng = np.random.default_rng([seed, list(STYLES).index(style)])
        return [[STYLES[style](attributes, rng) for attributes in events] for events in self.events]

    def narrate(self, seed: int, chatter_ratio: float) -> list[list[str]]:
        """V lists of E spoken sentences, of which a share has nothing to do with what is seen."""
        rng = np.random.default_rng([seed, len(STYLES)])
        return [
            [CHATTER[rng.integers(len(CHATTER))] if rng.random() < chatter_ratio else text for text in texts]
            for texts in self.say(SPOKEN, seed)
        ]

    def say_order(self, seed: int) -> list[tuple[str, str]]:
        """For clips of two events: V captions in the right order, and in the wrong one."""
        rng = np.random.default_rng([seed, len(STYLES) + 1])
        return [say_order(*events, rng) for events in self.events]

    def first(self, num: int) -> "Clips":
        """The first clips."""
        return Clips(self.frames[:num], self.events[:num])

    def labels(self, attribute: str, place: int = 0) -> np.ndarray:
        """int (V,): which of `CLASSES[attribute]` that of the event at a place is, 0 for the first one."""
        return np.array([CLASSES[attribute].index(getattr(events[place], attribute)) for events in self.events])


class SyntheticVideos:
    """All clips of one seed, each kind drawn when it is first asked for."""

    def __init__(self, settings: VideoSettings, seed: int):
        self.settings, self.seed = settings, seed
        combinations = [Attributes(*attributes) for attributes in product(*CLASSES.values())]
        order = np.random.default_rng([seed, len(_KINDS)]).permutation(len(combinations))
        num_test = round(TEST_RATIO * len(combinations))
        self.test_attributes = [combinations[index] for index in order[:num_test]]
        self.train_attributes = [combinations[index] for index in order[num_test:]]

    @cached_property
    def stills(self) -> Clips:
        """What mini-CLIP sees: pictures (T = 1), half of them of long exposure."""
        rng = self._rng("stills")
        attributes = [
            self.train_attributes[i]
            for i in _without_repeats(self.settings.num_stills, len(self.train_attributes), rng)
        ]
        moves = rng.random(len(attributes)) < LONG_EXPOSURES
        attributes = [each if seen else _at_rest(each) for each, seen in zip(attributes, moves, strict=True)]
        trail = np.array([DIRECTIONS.get(each.motion, (0, 0)) for each in attributes])
        corners = GRID_STEP * rng.integers(self._num_steps + 1, size=(len(attributes), 2))
        frames = draw_frames(_instants(attributes, corners, trail), self.settings.image_size, rng)
        return Clips(frames[:, None], [(each,) for each in attributes])

    @cached_property
    def narrated(self) -> Clips:
        """Post-pretraining's narrated videos; `NUM_TRANSCRIPTS` events each."""
        return self._film("narrated", self.settings.num_narrated, NUM_TRANSCRIPTS, self.train_attributes)

    @cached_property
    def captioned(self) -> Clips:
        """Post-pretraining's captioned clips; one event each."""
        return self._film("captioned", self.settings.num_captioned, 1, self.train_attributes)

    @cached_property
    def ordered(self) -> Clips:
        """Captioned clips of two events."""
        return self._film("ordered", self.settings.num_captioned, 2, self.train_attributes)

    @cached_property
    def test(self) -> Clips:
        """Test clips of one event: one of each held-out combination."""
        return self._film("test", len(self.test_attributes), 1, self.test_attributes)

    @cached_property
    def probe(self) -> Clips:
        """What a linear probe is trained on; one event each."""
        return self._film("probe", self.settings.num_probe, 1, self.train_attributes)

    @cached_property
    def test_ordered(self) -> Clips:
        """Test clips of two events."""
        return self._film("test_ordered", 2 * len(self.test_attributes), 2, self.test_attributes)

    @cached_property
    def probe_ordered(self) -> Clips:
        """What a linear probe is trained on; two events each."""
        return self._film("probe_ordered", self.settings.num_probe, 2, self.train_attributes)

    @cached_property
    def test_narrated(self) -> Clips:
        """Narrated videos to test the sorter on."""
        return self._film("test_narrated", 2 * len(self.test_attributes), NUM_TRANSCRIPTS, self.test_attributes)

    @property
    def _num_steps(self) -> int:
        """Steps of the grid from one side of a picture to the other."""
        return (self.settings.image_size - ICON_SIZE) // GRID_STEP

    def _rng(self, kind: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, _KINDS.index(kind)])

    def _film(self, kind: str, num_clips: int, num_events: int, choices: list[Attributes]) -> Clips:
        rng, size = self._rng(kind), self.settings.image_size
        events = [
            _draw_events(choices[first], num_events, choices, rng)
            for first in _without_repeats(num_clips, len(choices), rng)
        ]
        num_shown = self.settings.num_frames // num_events
        attributes = [each for clip in events for each in clip]
        corners = _travel(attributes, num_shown, self._num_steps, rng)
        instants = _instants([each for each in attributes for _ in range(num_shown)], corners, np.zeros_like(corners))
        frames = draw_frames(instants, size, rng)
        return Clips(frames.reshape(num_clips, num_events * num_shown, size, size, 3), events)


def _draw_events(
    first: Attributes, num: int, choices: list[Attributes], rng: np.random.Generator
) -> tuple[Attributes, ...]:
    """Events in one place, no color and no shape twice: any two moments of a video differ by sight and by word."""
    events = [first]
    while len(events) < num:
        other = choices[rng.integers(len(choices))]
        if other.place == first.place and all(o.color != other.color and o.shape != other.shape for o in events):
            events.append(other)
    return tuple(events[number] for number in rng.permutation(num))


def _at_rest(attributes: Attributes) -> Attributes:
    return Attributes(attributes.color, attributes.shape, None, attributes.place)


def _travel(attributes: Sequence[Attributes], num_shown: int, num_steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return corners, int (len(attributes) * num_shown, 2), of shapes that cross the picture at random places."""
    phase = (
        np.arange(num_shown) + rng.uniform(0, 1, (len(attributes), 1))
    ) / num_shown  # (events, instants), in [0, 1)
    along = (phase * (num_steps + 1)).astype(int)
    steps = np.repeat(rng.integers(num_steps + 1, size=(len(attributes), 1, 2)), num_shown, axis=1)
    for number, each in enumerate(attributes):
        axis = 0 if each.motion in ("left", "right") else 1
        steps[number, :, axis] = along[number] if sum(DIRECTIONS[each.motion]) > 0 else num_steps - along[number]
    return GRID_STEP * steps.reshape(-1, 2)


def _instants(attributes: Sequence[Attributes], corners: np.ndarray, trail: np.ndarray) -> Instants:
    """One instant of each of `attributes`."""
    return Instants(
        colors=np.array([each.color for each in attributes]),
        shapes=np.array([each.shape for each in attributes]),
        places=np.array([each.place for each in attributes]),
        corner=corners,
        trail=trail,
    )


def _without_repeats(num: int, num_choices: int, rng: np.random.Generator) -> np.ndarray:
    """int (num,): numbers below `num_choices`, none a second time before all were drawn."""
    rounds = [rng.permutation(num_choices) for _ in range(-(-num // num_choices))]
    return np.concatenate(rounds)[:num]
