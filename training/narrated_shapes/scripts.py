"""Scripts of generated videos: their events and what is said about them, functions of (seed, split, index)."""

from dataclasses import dataclass, fields

import numpy as np

from training.narrated_shapes.captions import ATTRIBUTES, describe, draw_named
from training.narrated_shapes.narration import SpokenWord, narrate
from training.narrated_shapes.scene_drawing import COLORS, MOTIONS, ROUND_SHAPES, SCENES, SHAPES, SPEEDS, Event

SPLITS = ("train", "heldout")
NUM_EVENTS = 7
VIDEO_SECONDS = (28.0, 31.0)  # the longest span of four clips is 23 s, which leaves room to shift it by one event
CAPTION_CLIP_SECONDS = (3.0, 5.0)
NUM_CLIPS_PER_ROUND = sum(map(len, ATTRIBUTES.values()))  # held-out clips in one group of each attribute


@dataclass(frozen=True)
class CorpusConfig:
    """Everything that decides the content of a corpus.

    image_size: height and width of all videos in pixels, even; 72 leaves a border for crops of 64.
    fps: frames per second; low, because reading frames is a large part of a small model's training time.
    """

    seed: int = 0
    num_train_videos: int = 1200
    num_heldout_videos: int = 256
    num_train_captions: int = 4000
    num_heldout_captions: int = 560
    image_size: int = 72
    fps: int = 4

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{field.name} must be an integer of at least 0, got {value!r}")
        if self.image_size < 32 or self.image_size % 2:
            raise ValueError(f"image_size must be even and at least 32, got {self.image_size}")
        if not 2 <= self.fps <= 60:
            raise ValueError(f"fps must be 2 to 60, got {self.fps}")


@dataclass(frozen=True)
class NarratedVideo:
    """The script of a narrated video: `words` in order of time, `sentences` as an editor wrote them."""

    scene: str
    events: tuple[Event, ...]
    words: tuple[SpokenWord, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class CaptionClip:
    """The script of a captioned clip; held-out clips of one `group` differ in a single attribute."""

    scene: str
    event: Event
    caption: str
    group: str = ""

    @property
    def attributes(self) -> dict[str, str]:
        """The value of each of `ATTRIBUTES`."""
        return {name: self.scene if name == "scene" else getattr(self.event, name) for name in ATTRIBUTES}


def plan_narrated_video(config: CorpusConfig, split: str, index: int) -> NarratedVideo:
    """Return the script of narrated video `index` of a split."""
    rng = make_generator(config, split, "narrated", index)
    scene = str(rng.choice(list(SCENES)))
    duration = rng.uniform(*VIDEO_SECONDS)
    lengths = rng.uniform(0.9, 1.1, NUM_EVENTS)
    edges = np.concatenate([[0.0], np.cumsum(lengths / lengths.sum() * duration)])
    # All colors of a video differ, so that any two of its moments do.
    colors = rng.choice(list(COLORS), NUM_EVENTS, replace=False)
    events = [
        Event(str(color), *_draw_action(rng), float(edges[i]), float(edges[i + 1])) for i, color in enumerate(colors)
    ]
    narrations = [narrate(event, scene, rng) for event in events]
    return NarratedVideo(
        scene=scene,
        events=tuple(events),
        words=tuple(word for narration in narrations for word in narration),
        sentences=tuple(" ".join(word.cleaned for word in narration if word.cleaned) for narration in narrations),
    )


def plan_caption_clip(config: CorpusConfig, split: str, index: int) -> CaptionClip:
    """Return the script of captioned clip `index` of a split.

    Training clips are drawn at random, and most of their captions name some attributes only. Held-out clips come in
    groups, one clip per value of one attribute, equal in all others, and their captions name everything: whatever a
    model does not see in the video, it can tell such clips apart by nothing else.
    """
    rng = make_generator(config, split, "captioned", index)
    seconds = float(rng.uniform(*CAPTION_CLIP_SECONDS))
    if split == "train":
        scene, color = str(rng.choice(list(SCENES))), str(rng.choice(list(COLORS)))
        event = Event(color, *_draw_action(rng), 0.0, seconds)
        return CaptionClip(scene, event, describe(event, scene, rng, draw_named(rng)))
    attribute, value, number = _heldout_place(index)
    shared = make_generator(config, split, f"{attribute} groups", number)
    values = {name: str(shared.choice(_values_in_groups(name, attribute))) for name in ATTRIBUTES} | {attribute: value}
    scene = values.pop("scene")
    event = Event(**values, start_seconds=0.0, end_seconds=seconds)
    return CaptionClip(scene, event, describe(event, scene, rng), f"{attribute}{number}")


def _heldout_place(index: int) -> tuple[str, str, int]:
    """Return the attribute and the value that held-out clip `index` stands for, and the number of its group."""
    places = [(attribute, value) for attribute, values in ATTRIBUTES.items() for value in values]
    number, place = divmod(index, NUM_CLIPS_PER_ROUND)
    return *places[place], number


def _values_in_groups(name: str, varied: str) -> list[str]:
    """Return the values of attribute `name` in groups that differ in `varied`: round shapes and spinning never meet."""
    left_out = {("shape", "motion"): ROUND_SHAPES, ("motion", "shape"): ("spin",)}.get((name, varied), ())
    if varied not in ("shape", "motion") and name == "shape":
        left_out = ROUND_SHAPES
    return [value for value in ATTRIBUTES[name] if value not in left_out]


def _draw_action(rng: np.random.Generator) -> tuple[str, str, str]:
    """Return a shape, a motion that can be seen in it, and a speed."""
    shape = str(rng.choice(list(SHAPES)))
    motions = [motion for motion in MOTIONS if not (motion == "spin" and shape in ROUND_SHAPES)]
    return shape, str(rng.choice(motions)), str(rng.choice(SPEEDS))


def make_generator(config: CorpusConfig, split: str, purpose: str, index: int) -> np.random.Generator:
    """Return the generator of one purpose: "narrated", "captioned", "… pixels", or "… groups" of an attribute."""
    purposes = (
        "narrated",
        "captioned",
        "narrated pixels",
        "captioned pixels",
        *(f"{name} groups" for name in ATTRIBUTES),
    )
    return np.random.default_rng([config.seed, SPLITS.index(split), purposes.index(purpose), index])
