"""What is seen and said: held-out combinations, sentences that tell their attributes, shapes that move."""

import re

import numpy as np
import pytest

from benchmarks.study.drawing import DIRECTIONS, ICONS
from benchmarks.study.evaluation import sentences
from benchmarks.study.sentences import (
    MOTIONS,
    OTHER_COLORS,
    OTHER_MOTIONS,
    OTHER_PLACES,
    OTHER_SHAPES,
    SHAPE_NAMES,
    SPOKEN,
    STYLES,
    WRITTEN,
)
from benchmarks.study.settings import read_study
from benchmarks.study.synthetic_videos import CLASSES, SyntheticVideos
from tests.benchmarks.study.conftest import SEED, SMALLEST


def test_held_out_combinations_are_in_no_training_clip(synthetic):
    held_out = set(synthetic.test_attributes)
    assert len(held_out) == 144
    kinds = (
        synthetic.stills,
        synthetic.narrated,
        synthetic.captioned,
        synthetic.ordered,
        synthetic.probe,
        synthetic.probe_ordered,
    )
    for clips in kinds:
        assert not held_out & {attributes for events in clips.events for attributes in events}
    for clips in (synthetic.test, synthetic.test_ordered, synthetic.test_narrated):
        assert held_out >= {attributes for events in clips.events for attributes in events}
    assert sorted(map(str, held_out)) == sorted(str(attributes) for (attributes,) in synthetic.test.events)


def test_unseen_styles_do_not_leak_into_post_pretraining(synthetic):
    def words(texts) -> set[str]:
        return {word for text in texts for word in re.findall(r"[\w']+", text.lower())}

    every = [*synthetic.test_attributes, *synthetic.train_attributes]
    of_style = {style: words(sentences(every, style)) for style in STYLES}
    trained = words(text for each in synthetic.narrated.narrate(SEED, 0.2) for text in each)
    trained |= words(text for (text,) in synthetic.captioned.say("caption", SEED))
    trained |= words(right for right, _ in synthetic.ordered.say_order(SEED))
    names = [OTHER_COLORS, OTHER_SHAPES, OTHER_MOTIONS, OTHER_PLACES]
    vocabulary = words(text for table in names for texts in table.values() for text in texts)
    assert len(vocabulary & of_style["paraphrase"]) > 40
    assert not vocabulary & trained
    for style in set(STYLES) - {"paraphrase"}:
        assert not vocabulary & of_style[style]
    assert not (of_style["passive"] & {"being", "someone", "pushed"}) & trained
    assert SPOKEN not in WRITTEN


@pytest.mark.parametrize("style", WRITTEN)
def test_every_written_sentence_tells_its_attributes(style):
    """From the sentence alone the attributes can be read, so that no style is at a loss by what it leaves out."""
    names = {
        "color": OTHER_COLORS if style == "paraphrase" else {name: (name,) for name in OTHER_COLORS},
        "shape": OTHER_SHAPES if style == "paraphrase" else SHAPE_NAMES,
        "place": OTHER_PLACES if style == "paraphrase" else {name: (name,) for name in CLASSES["place"]},
        "motion": OTHER_MOTIONS if style == "paraphrase" else {name: (*MOTIONS[name], name) for name in DIRECTIONS},
    }
    attributes = SyntheticVideos(read_study(SMALLEST).videos, SEED).test_attributes
    for each, sentence in zip(attributes, sentences(attributes, style), strict=True):
        for attribute, table in names.items():
            found = {name for name, said in table.items() if name and any(part in sentence for part in said)}
            assert getattr(each, attribute) in found, (sentence, attribute)
            assert len(found) == 1 or (attribute == "motion" and "up" in found), (
                sentence,
                attribute,
                found,
            )  # "up" is in "cup"


def test_shapes_move_where_they_are_said_to(synthetic):
    for frames, ((attributes), *_) in zip(synthetic.test.frames, synthetic.test.events, strict=True):
        grounds = np.median(frames.reshape(len(frames), -1, 3), axis=1)[:, None, None]
        ink = np.abs(frames - grounds).sum(axis=-1)
        grid = np.arange(frames.shape[1])
        across = (ink.sum(axis=1) * grid).sum(axis=1) / ink.sum(axis=(1, 2))
        along = (ink.sum(axis=2) * grid).sum(axis=1) / ink.sum(axis=(1, 2))
        moved = np.array([across[-1] - across[0], along[-1] - along[0]])
        wanted = np.array(DIRECTIONS[attributes.motion])
        assert (moved * wanted).sum() > 1.5, attributes
        assert abs((moved * (1 - np.abs(wanted))).sum()) < 1.0, attributes


def test_icons_are_all_different_also_turned_over():
    icons = list(ICONS.values())
    for number, icon in enumerate(icons):
        for other in icons[number + 1 :]:
            assert min(np.abs(icon - turned).sum() for turned in (other, other[::-1], other[:, ::-1])) >= 4


def test_moments_of_a_video_differ_by_sight_and_by_word(synthetic):
    for events in synthetic.narrated.events:
        assert len({attributes.color for attributes in events}) == len({attributes.shape for attributes in events}) == 4
        assert len({attributes.place for attributes in events}) == 1
