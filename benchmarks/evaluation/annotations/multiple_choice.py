"""Videos, options and answers of multiple-choice benchmarks, read from the files as published."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.evaluation.annotations.files import check_unique, read_lines, split_checksum, text_field


@dataclass(frozen=True)
class MultipleChoiceSet:
    """Questions, one a video.

    Attributes:
        videos: names as annotated, each once.
        options: for each video its texts, in any number from two.
        answers: for each video the index of the right one.
    """

    videos: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    answers: tuple[int, ...]

    @property
    def checksum(self) -> str:
        """Of the split as read."""
        return split_checksum(self.videos, self.options, self.answers)


def read_ssv2_mc(file: str | Path) -> MultipleChoiceSet:
    """SSV2-MC (`ssv2/mc/val.jsonl`): a JSON object a line with clip_name, options (174 of them) and answer."""
    videos, options, answers = [], [], []
    for place, line in read_lines(file):
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{place} is no JSON ({error}).") from error
        videos.append(text_field(entry, "clip_name", place))
        options.append(_options(entry.get("options"), place))
        answers.append(_answer(entry.get("answer"), len(options[-1]), place))
    check_unique(videos, "video", file)
    return MultipleChoiceSet(tuple(videos), tuple(options), tuple(answers))


def _options(value: Any, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError(f"{place}: 'options' must be a list of at least two texts.")
    options = tuple(text_field({"option": option}, "option", place) for option in value)
    check_unique(list(options), "option", place)
    return options


def _answer(value: Any, num_options: int, place: str) -> int:
    try:
        answer = int(str(value))
    except ValueError as error:
        raise ValueError(f"{place}: 'answer' must be the number of an option, got {value!r}.") from error
    if not 0 <= answer < num_options:
        raise ValueError(f"{place}: 'answer' is {answer}, but the options are numbered 0..{num_options - 1}.")
    return answer
