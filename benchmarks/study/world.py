"""The study's clips: generated scenes drawn straight into arrays. No video file is written or decoded.

Axes: V clips, E events of a clip, F stored frames of an event, S height and width in pixels.

The combinations of colour, shape, motion and scene are divided once: those of the test clips occur in no training clip
of one event, so their sentences are held out too.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from benchmarks.study.registers import REGISTERS, say_order
from benchmarks.study.settings import WorldSettings
from training.scene_drawing import ROUND_SHAPES, Event, draw_video

EVENT_SECONDS = 4.0
_PURPOSES = (
    "images",
    "narrated",
    "captioned",
    "ordered",
    "test",
    "probe",
    "test_ordered",
    "probe_ordered",
    "test_narrated",
)

Facts = tuple[str, str, str, str]  # colour, shape, motion, scene


@dataclass(frozen=True)
class Clips:
    """Clips of one kind.

    frames: uint8 (V, E * F, S, S, 3) RGB.
    events: E of each clip, in order of time.
    scenes: one a clip.
    """

    frames: np.ndarray
    events: list[tuple[Event, ...]]
    scenes: list[str]

    def say(self, register: str, seed: int) -> list[list[str]]:
        """V lists of E sentences in a register, the same for the same seed."""
        rng = np.random.default_rng([seed, list(REGISTERS).index(register)])
        return [
            [REGISTERS[register](event, scene, rng) for event in events]
            for events, scene in zip(self.events, self.scenes, strict=True)
        ]

    def say_order(self, seed: int) -> list[tuple[str, str]]:
        """For clips of two events: V captions in the right order, and in the wrong one."""
        rng = np.random.default_rng([seed, len(REGISTERS)])
        return [say_order(*events, rng) for events in self.events]

    def labels(self, fact: str, classes: list[str]) -> np.ndarray:
        """int (V,): which of the classes the first event's `"color"`, `"shape"` or `"motion"` is."""
        return np.array([classes.index(getattr(events[0], fact)) for events in self.events])


class World:
    """All clips of one seed, each kind drawn when it is first asked for."""

    def __init__(self, settings: WorldSettings, seed: int):
        self.settings, self.seed = settings, seed
        self.classes = {"color": settings.colors, "shape": settings.shapes, "motion": settings.motions}
        facts = (settings.colors, settings.shapes, settings.motions, settings.scenes)
        combinations = [each for each in product(*facts) if _is_visible(each)]
        order = np.random.default_rng([seed, len(_PURPOSES)]).permutation(len(combinations))
        num_test = round(settings.test_ratio * len(combinations))
        self._test = [combinations[index] for index in order[:num_test]]
        self._train = [combinations[index] for index in order[num_test:]]

    @cached_property
    def images(self) -> Clips:
        """What mini-CLIP sees frames of; one event each."""
        return self._draw("images", self.settings.num_images, 1, self._train)

    @cached_property
    def narrated(self) -> Clips:
        """Post-pretraining's narrated videos; `num_transcripts` events each."""
        return self._draw("narrated", self.settings.num_narrated, self.settings.num_transcripts, self._train)

    @cached_property
    def captioned(self) -> Clips:
        """Post-pretraining's captioned clips; one event each."""
        return self._draw("captioned", self.settings.num_captioned, 1, self._train)

    @cached_property
    def ordered(self) -> Clips:
        """Captioned clips of two events."""
        return self._draw("ordered", self.settings.num_captioned, 2, self._train)

    @cached_property
    def test(self) -> Clips:
        """Test clips of one event, all different."""
        return self._draw("test", self.settings.num_test, 1, self._test)

    @cached_property
    def probe(self) -> Clips:
        """What a linear probe is trained on; one event each."""
        return self._draw("probe", self.settings.num_probe, 1, self._train)

    @cached_property
    def test_ordered(self) -> Clips:
        """Test clips of two events."""
        return self._draw("test_ordered", self.settings.num_test, 2, self._test)

    @cached_property
    def probe_ordered(self) -> Clips:
        """What a linear probe is trained on; two events each."""
        return self._draw("probe_ordered", self.settings.num_probe, 2, self._train)

    @cached_property
    def test_narrated(self) -> Clips:
        """Narrated videos to test the sorter on."""
        return self._draw("test_narrated", self.settings.num_test, self.settings.num_transcripts, self._test)

    def _draw(self, purpose: str, num_clips: int, num_events: int, combinations: list[Facts]) -> Clips:
        rng = np.random.default_rng([self.seed, _PURPOSES.index(purpose)])
        size, frames_per_event = self.settings.image_size, self.settings.frames_per_event
        frames = np.empty((num_clips, num_events * frames_per_event, size, size, 3), np.uint8)
        events, scenes = [], []
        for clip, first in enumerate(_draw_without_repeats(num_clips, len(combinations), rng)):
            facts = [combinations[first]]
            while len(facts) < num_events:  # one scene a video, and no colour twice: any two of its moments differ
                other = combinations[rng.integers(len(combinations))]
                if other[3] == facts[0][3] and all(other[0] != each[0] for each in facts):
                    facts.append(other)
            facts = [facts[place] for place in rng.permutation(num_events)]
            times = EVENT_SECONDS * np.arange(num_events + 1)
            events.append(tuple(Event(*each[:3], times[i], times[i + 1]) for i, each in enumerate(facts)))
            scenes.append(facts[0][3])
            fps = frames_per_event / EVENT_SECONDS
            frames[clip] = draw_video(scenes[-1], events[-1], fps=fps, image_size=size, rng=rng)
        return Clips(frames, events, scenes)


def _is_visible(facts: Facts) -> bool:
    return not (facts[2] == "spin" and facts[1] in ROUND_SHAPES)


def _draw_without_repeats(num: int, num_choices: int, rng: np.random.Generator) -> np.ndarray:
    """int (num,): numbers below `num_choices`, none a second time before all were drawn."""
    rounds = [rng.permutation(num_choices) for _ in range(-(-num // num_choices))]
    return np.concatenate(rounds)[:num]
