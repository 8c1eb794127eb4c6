"""A video of a source with its text, and what every format of a source offers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from training.transcripts.words import TimedWord


@dataclass(frozen=True)
class SourceVideo:
    """A video and its text: timed words, or one caption for the whole video.

    file: a path, or the video's bytes.
    video_id: names the video within its source.
    place: what errors call it, such as "train.csv, line 7".
    words: all words spoken, in order of time; seconds count from the video's first frame, or on the file's clock.
    duration: seconds in which clips may lie.
    shots: seconds at which shots start, ascending; no clip contains a cut. Empty where cuts do not count.
    caption: None where there are words.
    on_file_clock: the words' seconds count from the start of the file, as those of transcripts do, also where the
        video track starts later.
    """

    file: Path | bytes
    video_id: str
    place: str
    words: Sequence[TimedWord] = ()
    duration: float = 0.0
    shots: Sequence[float] = ()
    caption: str | None = None
    on_file_clock: bool = False


class VideoSource(Protocol):
    """What a format's class offers; its constructor's arguments are the keys of a source in the YAML."""

    is_captioned: ClassVar[bool]
    """Whether every video has one caption instead of timed words, so that there is nothing to sort."""

    def __len__(self) -> int: ...

    def names(self) -> Iterable[str]:
        """Return what tells each video from all others on this machine, or nothing where that needs reading it all."""
        ...

    def __getitem__(self, index: int) -> SourceVideo:
        """Return video `index`, its frames unread.

        Raises:
            VideoReadingError: the video's bytes cannot be read.
            TranscriptError: its words are missing or broken.
        """
        ...
