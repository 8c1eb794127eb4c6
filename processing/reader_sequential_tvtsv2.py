"""Reading a video by decoding the whole stream, for files whose packet table is not certain.

The number of frames is known at the end only. Those asked for are chosen by the number and the times that the packets
announce; where these prove wrong, a second decode is needed.
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
from .reader_metadata_tvtsv2 import OrientationReader, VideoFileMetadata, describe
from .reader_packets_tvtsv2 import MISSING, codec_of

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


def read_sequentially(
    open_again: OpenAgain, request: ReadRequest, reason: str, ticks: list[int | None] | None
) -> tuple[np.ndarray, VideoFileMetadata]:
    """Return the frames asked for and the metadata.

    Args:
        open_again: Opens the video from its start; never twice at a time, as that may read through one file object.
        request: The frames asked for.
        reason: Why the packet table was not used.
        ticks: `announced_ticks`, if they are known.
    """
    if ticks is None:
        with open_again() as video:
            ticks = announced_ticks(video)
    with open_again() as video:
        metadata, taken = _decode_all(video, request, ticks)
        metadata.sequential_reason = reason
        request.check_damage(metadata, video)
        if taken is not None:
            return taken.finish(metadata)
    with open_again() as video:
        taken = TakenFrames(video, request, metadata)
        last = max(taken.indices)
        for index, (_, frame) in enumerate(decode_sequentially(video, Damage())):
            taken.add(index, frame)
            if index == last:
                break
        return taken.finish(metadata)


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
    with reading_errors(video.name):
        try:
            for packet in demux(video, video.stream):
                video.check_clock()
                if not packet.size and packet.pos is None:  # PyAV's packet at the end
                    break
                for side_data in packet.iter_sidedata():
                    check_side_data(side_data, video)
                if packet.size:
                    damage.rows.extend((MISSING if packet.pts is None else packet.pts, packet.is_keyframe, False))
                yield packet
        except av.FFmpegError:
            damage.is_truncated = True
    yield None


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


def _decode_all(
    video: OpenVideo, request: ReadRequest, announced_ticks: list[int | None]
) -> tuple[VideoFileMetadata, TakenFrames | None]:
    """Return the metadata, and the frames asked for or None where the announcement proves wrong."""
    damage, orientations = Damage(), OrientationReader()
    ticks: list[int | None] = []
    first_frame = announced = taken = None
    for tick, frame in decode_sequentially(video, damage):
        video.check_frame_size(frame.width, frame.height)
        orientation = orientations.read(frame)
        if first_frame is None:
            first_frame, first_orientation = frame, orientation
            with suppress(ValueError):  # of a wrong number of frames, perhaps
                announced = describe(video, frame, orientation, announced_ticks)
                taken = TakenFrames(video, request, announced)
        # Decoders and standards disagree on how long an orientation that pictures state is valid.
        if orientation != first_orientation:
            raise video.error("its pictures state different orientations; videos that change it are not read.")
        if taken is not None:
            taken.add(len(ticks), frame)
        ticks.append(tick)
    if first_frame is None:
        video.check_frame_size(video.stream.codec_context.width, video.stream.codec_context.height)
        raise video.error("no frame of it can be decoded.")
    metadata = describe(video, first_frame, first_orientation, ticks)
    metadata.num_undecodable_packets = damage.num_undecodable_packets
    metadata.num_corrupt_frames = len(damage.corrupt_ticks)
    metadata.damaged_frames = damage.find_damaged(ticks)
    metadata.is_truncated = damage.is_truncated or is_cut_short(video, len(damage.rows) // 3)
    return metadata, taken if _is_as_announced(metadata, announced) else None


def _is_as_announced(metadata: VideoFileMetadata, announced: VideoFileMetadata | None) -> bool:
    """Return whether number and times of frames, relative to the first, choose the frames that were announced."""
    if announced is None or announced.total_num_frames != metadata.total_num_frames:
        return False
    times, others = (each.frame_seconds - each.frame_seconds[0] for each in (metadata, announced))
    return announced.start_seconds == metadata.start_seconds and np.allclose(times, others, rtol=0, atol=1e-6)


def announced_ticks(video: OpenVideo) -> list[int | None]:
    """Return the times of all packets of a freshly opened video that may show a frame, in display order.

    They are None where one is missing.
    """
    repeats = codec_of(video) == "theora"
    packets = (packet for packet in _demux(video, Damage()) if packet is not None)
    ticks = [packet.pts for packet in packets if (packet.size or repeats) and not packet.is_discard]
    return [None] * len(ticks) if None in ticks else sorted(ticks)
