"""YT-Temporal: a list of videos, and a JSON annotation of timed words for each."""

import json
from collections.abc import Iterable
from pathlib import Path

from training.sources.clip_sampling import TranscriptError
from training.sources.source_video import SourceVideo
from training.sources.table_files import check_first_video, read_table, resolve_inside
from training.transcripts.alignment import read_annotation, read_duration

MAX_ANNOTATION_BYTES = 64 * 2**20  # more than a day of speech
MAX_ALIGNED_WORDS = 50_000  # over five hours of speech; aligning more could exceed the time limit for loading a batch


class YTTemporal:
    """Narrated videos in YT-Temporal's layout.

    Videos lie at `videos/<subset>/data/<id>.mp4` under `root`, annotations at `videos/<subset>/annotations/<id>.json`.

    Args:
        list_file: CSV or tab-separated, with a column `Name` of `<subset>/<id>`.
        root: the folder that holds `videos`.

    Raises:
        FileNotFoundError: the list file, or the first video, does not exist.
        ValueError: the list file is broken, or a name leads out of `root`.
    """

    is_captioned = False

    def __init__(self, list_file: str | Path, root: str | Path):
        self.table = read_table(list_file, ["Name"])
        self.root = Path(root).resolve()
        check_first_video(self.table, self.paths(0)[0], self.root)

    def __len__(self) -> int:
        return len(self.table)

    def names(self) -> Iterable[str]:
        """Yield the `<subset>/<id>` of each video below the root."""
        return (f"{self.root}/{name.removesuffix('.mp4')}" for name in self.table.columns["Name"])

    def paths(self, index: int) -> tuple[Path, Path]:
        """Return the video and the annotation file of a row."""
        name, place = self.table.columns["Name"][index], self.table.place(index)
        subset, slash, video_id = name.removesuffix(".mp4").partition("/")
        if not (subset and slash and video_id) or "/" in video_id:
            raise ValueError(f"{place}: column 'Name' should be <subset>/<id>, got {name!r}")
        files = (f"videos/{subset}/data/{video_id}.mp4", f"videos/{subset}/annotations/{video_id}.json")
        return resolve_inside(self.root, files[0], place), resolve_inside(self.root, files[1], place)

    def __getitem__(self, index: int) -> SourceVideo:
        """Return the video of row `index`.

        Raises:
            TranscriptError: its annotation is missing or broken.
        """
        video, file = self.paths(index)
        name, place = self.table.columns["Name"][index], self.table.place(index)
        try:
            if file.exists() and not file.is_file():
                raise ValueError("not a regular file")  # reading a pipe would never end
            if file.stat().st_size > MAX_ANNOTATION_BYTES:
                raise ValueError(f"larger than {MAX_ANNOTATION_BYTES >> 20} MiB")
            annotation = json.loads(file.read_bytes())
            duration, (words, *_) = read_duration(annotation), read_annotation(annotation, MAX_ALIGNED_WORDS)
        except FileNotFoundError as error:
            raise TranscriptError(f"{place}: there is no annotation {file}") from error
        except (ValueError, OSError, RecursionError) as error:
            raise TranscriptError(f"{place}: annotation {file} is broken: {error}") from error
        return SourceVideo(video, name, f"{place}, {video.stem}", words, duration, on_file_clock=True)
