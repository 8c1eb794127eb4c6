"""Reading a video by decoding the whole stream, for files whose packet table is not certain.

The number of frames is known at the end only. Frames are kept until then where they are few. Otherwise those asked for
are chosen by the number and the times that the packets announce; a second decode is needed where these prove wrong.
"""

from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field

import av
import numpy as np

from .reader_container_tvtsv2 import OpenVideo, demux, raw_file, reading_errors
from .reader_encryption_tvtsv2 import check_side_data
from .reader_frames_tvtsv2 import ReadRequest, TakenFrames
from .reader_head_tvtsv2 import MAX_OGG_PAGE, declared_size, ends_as_ogg
from .reader_metadata_tvtsv2 import Orientation, OrientationReader, VideoFileMetadata, describe
from .reader_packets_tvtsv2 import MAX_KEPT_BYTES, MISSING, codec_of

# Opens the same video once more.
OpenAgain = Callable[[], AbstractContextManager[OpenVideo]]


@dataclass
class Damage:
    """What a sequential decode passes over.

    Attributes:
        rows: Timestamp, keyframe flag, and whether it is undecodable, of every packet with data.
        corrupt_ticks: Timestamps of frames that are flagged as corrupt.
        is_truncated: Demuxing ends with an error.
    """

    rows: array = field(default_factory=lambda: array("q"))
    corrupt_ticks: list[int] = field(default_factory=list)
    is_truncated: bool = False

    def refuse(self, packet: av.Packet | None, video: OpenVideo) -> None:
        """Note that the decoder refuses the last packet read; None for the end of the stream."""
        if packet is not None and codec_of(video) == "h264":
            # The decoder also refuses packets without a slice, which stand for no frame.
            slices = av.bitstream.BitStreamFilterContext("filter_units=pass_types=1-5", video.stream)
            with suppress(av.FFmpegError):
                self.rows[-1] = len(slices.filter(packet)) > 0
                return
        if self.rows:
            self.rows[-1] = True

    @property
    def num_undecodable_packets(self) -> int:
        """Return the number of undecodable packets."""
        return sum(self.rows[2::3])

    def find_damaged(self, ticks: list[int | None]) -> list[int]:
        """Return the indices of the frames, of these timestamps, that may show damage."""
        corrupt = set(self.corrupt_ticks)
        damaged, is_damaged, exact_from = set(corrupt), False, MISSING
        for tick, is_keyframe, is_refused in zip(*[iter(self.rows)] * 3, strict=True):
            if is_refused or tick in corrupt:
                is_damaged, exact_from = True, MISSING
            elif is_keyframe:
                is_damaged, exact_from = is_damaged and exact_from == MISSING, tick
            # Frames shown before a keyframe may refer to those decoded before it.
            if is_damaged and (exact_from == MISSING or tick < exact_from):
                damaged.add(tick)
        return [index for index, tick in enumerate(ticks) if (MISSING if tick is None else tick) in damaged]


def read_sequentially(open_again: OpenAgain, request: ReadRequest, reason: str) -> tuple[np.ndarray, VideoFileMetadata]:
    """Return the frames asked for and the metadata; `reason` says why the packet table was not used."""
    with open_again() as video:
        survey = _Survey(video, request, open_again)
        metadata = survey.run()
        metadata.sequential_reason = reason
        if survey.taken is not None:
            return request.finish(survey.taken, metadata)
    with open_again() as video:
        taken = TakenFrames(video, request, metadata, survey.first_frame)
        last = max(taken.indices)
        for index, (_, frame) in enumerate(decode_sequentially(video, Damage())):
            taken.add(index, frame)
            if index == last:
                break
        return request.finish(taken, metadata)


def decode_sequentially(video: OpenVideo, damage: Damage) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """Yield the timestamp and the frame of every frame in display order, from one single-threaded decoder.

    A Theora packet without data repeats the last frame (Theora specification, section 7.11). Empty packets of other
    codecs are left out, as they stand for no frame. What had to be passed over is added to `damage`.
    """
    decoder, repeats = video.stream.codec_context, codec_of(video) == "theora"
    last_frame = None
    for packet in _demux(video, damage):
        if packet is not None and not packet.size:
            if repeats and last_frame is not None:
                yield packet.pts, last_frame
            continue
        with reading_errors(video.name):
            try:
                frames = decoder.decode(packet)
            except av.EOFError:  # drained already
                frames = []
            except av.FFmpegError:
                damage.refuse(packet, video)
                frames = []
        for frame in frames:
            if frame.is_corrupt:
                damage.corrupt_ticks.append(MISSING if frame.pts is None else frame.pts)
            last_frame = frame
            yield frame.pts, frame


def _demux(video: OpenVideo, damage: Damage) -> Iterator[av.Packet | None]:
    """Yield all packets of the stream, and None at their end."""
    packets = demux(video, video.stream)
    while True:
        video.check_clock()
        with reading_errors(video.name):
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                damage.is_truncated, packet = True, None
        # PyAV ends with a packet that has no position in the file.
        if packet is None or (not packet.size and packet.pos is None):
            yield None
            return
        for side_data in packet.iter_sidedata():
            check_side_data(side_data, video)
        if packet.size:
            damage.rows.extend((MISSING if packet.pts is None else packet.pts, packet.is_keyframe, False))
        yield packet


def is_cut_short(video: OpenVideo, num_packets: int) -> bool:
    """Return whether the file says that it is longer than it is.

    Looks at the container's index of packets, at the size that Matroska and RIFF files begin with, and at the last page
    of Ogg files. Transport and program streams say nothing: a part of one is one.
    """
    size = video.container.size
    if size <= 0:
        return False
    entries = video.stream.index_entries
    if len(entries) > num_packets and any(entry.pos + entry.size > size for entry in entries):
        return True
    with raw_file(video.openable) as file:
        if video.container.format.name == "ogg":
            file.seek(max(0, size - MAX_OGG_PAGE))
            return not ends_as_ogg(file.read())
        declared = declared_size(file.read(128))
    return declared is not None and declared > size


@dataclass
class _Survey:
    """One sequential decode that counts and times all frames.

    Attributes:
        kept: The frames so far, until they are too many to keep.
        taken: The frames chosen by the number and the times that the packets announce, from then on. None after the
            decode where a second one is needed.
        announced: The metadata they were chosen by.
    """

    video: OpenVideo
    request: ReadRequest
    open_again: OpenAgain
    damage: Damage = field(default_factory=Damage)
    ticks: list[int | None] = field(default_factory=list)
    first_frame: av.VideoFrame | None = None
    orientation: Orientation | None = None
    orientations: OrientationReader = field(default_factory=OrientationReader)
    kept: list[av.VideoFrame] | None = field(default_factory=list)
    kept_bytes: int = 0
    taken: TakenFrames | None = None
    announced: VideoFileMetadata | None = None

    def run(self) -> VideoFileMetadata:
        """Decode all frames and return the metadata."""
        for tick, frame in decode_sequentially(self.video, self.damage):
            self._add(tick, frame)
        metadata = self._describe()
        self.request.check_damage(metadata, self.video)
        if self.kept is not None:
            self.taken = TakenFrames(self.video, self.request, metadata, self.first_frame)
            for index, frame in enumerate(self.kept):
                self.taken.add(index, frame)
        elif self.announced is None or not np.array_equal(self.announced.frame_seconds, metadata.frame_seconds):
            self.taken = None
        return metadata

    def _add(self, tick: int | None, frame: av.VideoFrame) -> None:
        self.video.check_frame_size(frame.width, frame.height)
        orientation = self.orientations.read(frame)
        if self.first_frame is None:
            self.first_frame, self.orientation = frame, orientation
        # Decoders and standards disagree on how long an orientation that pictures state is valid.
        if orientation != self.orientation:
            raise self.video.error("its pictures state different orientations; videos that change it are not read.")
        self.ticks.append(tick)
        if self.taken is not None:
            self.taken.add(len(self.ticks) - 1, frame)
        if self.kept is None:
            return
        self.kept.append(frame)
        self.kept_bytes += sum(plane.buffer_size for plane in frame.planes)
        if self.kept_bytes > MAX_KEPT_BYTES:
            self._choose_by_announcement()
            if self.taken is not None:
                for index, earlier in enumerate(self.kept):
                    self.taken.add(index, earlier)
            self.kept = None

    def _choose_by_announcement(self) -> None:
        with self.open_again() as video:
            ticks = _announced_ticks(video)
            try:
                self.announced = describe(video, self.first_frame, ticks)
                self.taken = TakenFrames(self.video, self.request, self.announced, self.first_frame)
            except ValueError:  # of the wrong number of frames, perhaps
                self.taken = None

    def _describe(self) -> VideoFileMetadata:
        video = self.video
        if self.first_frame is None:
            video.check_frame_size(video.stream.codec_context.width, video.stream.codec_context.height)
            raise video.error("no frame of it can be decoded.")
        metadata = describe(video, self.first_frame, self.ticks)
        metadata.num_undecodable_packets = self.damage.num_undecodable_packets
        metadata.num_corrupt_frames = len(self.damage.corrupt_ticks)
        metadata.damaged_frames = self.damage.find_damaged(self.ticks)
        metadata.is_truncated = self.damage.is_truncated or is_cut_short(video, len(self.damage.rows) // 3)
        return metadata


def _announced_ticks(video: OpenVideo) -> list[int | None]:
    """Return the times of all packets that may show a frame, in display order; None for each where one is missing."""
    repeats = codec_of(video) == "theora"
    packets = (packet for packet in _demux(video, Damage()) if packet is not None)
    ticks = [packet.pts for packet in packets if (packet.size or repeats) and not packet.is_discard]
    return [None] * len(ticks) if None in ticks else sorted(ticks)
