"""WebVid: a table of videos with one caption each."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from processing.video_files import is_video_name
from training.sources.source_video import SourceVideo
from training.sources.table_files import check_first_video, read_header, read_table, resolve_inside
from training.transcripts.words import repair_encoding


class WebVid:
    """Captioned videos in WebVid's formats.

    The table has the columns `caption` and `path` (of the TVTSv2 release), or `videoid`, `page_dir` and `name` (as
    WebVid was published: the caption is `name`, the path `<page_dir>/<videoid>.mp4`).

    Args:
        table: comma-separated (.csv) or tab-separated (.tsv).
        root: the folder that paths are relative to.

    Raises:
        FileNotFoundError: the table, or the first video, does not exist.
        ValueError: the table is broken, or a path leads out of `root`.
    """

    is_captioned = True

    def __init__(self, table: str | Path, root: str | Path):
        is_published_form = "videoid" in read_header(table)
        self.table = read_table(table, ["name", "page_dir", "videoid"] if is_published_form else ["caption", "path"])
        self.captions = self.table.columns["name" if is_published_form else "caption"]
        self.root = Path(root).resolve()
        check_first_video(self.table, self.path(0), self.root)

    def __len__(self) -> int:
        return len(self.table)

    def names(self) -> Iterable[str]:
        """Yield the path of each video, links not followed."""
        return (f"{self.root}/{self._relative_path(index)}" for index in range(len(self)))

    def path(self, index: int) -> Path:
        """Return the video file of a row."""
        return resolve_inside(self.root, self._relative_path(index), self.table.place(index))

    def _relative_path(self, index: int) -> str:
        columns = self.table.columns
        if "path" not in columns:
            return f"{columns['page_dir'][index]}/{columns['videoid'][index]}.mp4"
        path = columns["path"][index]
        return path if is_video_name(path) else f"{path}.mp4"

    def __getitem__(self, index: int) -> SourceVideo:
        """Return the video of row `index`."""
        video_id = str(PurePosixPath(self._relative_path(index)).with_suffix(""))
        caption = repair_encoding(self.captions[index])
        return SourceVideo(self.path(index), video_id, self.table.place(index), duration=float("inf"), caption=caption)
