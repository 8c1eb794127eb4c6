"""Decoding of planned runs of packets, in parallel where that pays.

Every frame that comes out of a run is compared with the packet table: its time, its place in the order, its size. What
differs raises `UncertainTable`. `take(index, frame)` is called for each frame asked for, by the thread that decoded it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import numpy as np

from .format_headers_tvtsv2 import UncertainTable
from .reader_container_tvtsv2 import OpenVideo, decoder_max_pixels
from .reader_packets_tvtsv2 import (
    SKIPPING_CODECS,
    PacketTable,
    Run,
    codec_of,
    needed_packets,
)

# Codecs that a second decoder decodes in the same way from the stream's parameters alone.
PARALLEL_CODECS = frozenset({"av1", "h264", "hevc", "vp8", "vp9"})

# What frame threads gain on two cores, and the frame size below which they cost more than they gain: measured.
FRAME_THREADS_GAIN = 1.35
FRAME_THREADS_MIN_PIXELS = {"vp8": 480 * 320, "vp9": 480 * 320, "h264": 800 * 450, "hevc": 800 * 450, "av1": 800 * 450}

Take = Callable[[int, av.VideoFrame], None]

# The first frames shown, at least one, and how many packets the container's own decoder has consumed for them: decoding
# continues after these, 0 where the decoder was flushed.
FirstFrames = tuple[list[av.VideoFrame], int]


def decode_first_frames(table: PacketTable) -> FirstFrames:
    """Decode from the first packet until a frame comes out, which gives size and orientation.

    This also configures the decoder for later runs: some decoders take stream-wide parameters from the first packet.

    Raises:
        UncertainTable: No frame comes out, or another one than the table's first.
    """
    video, decoder = table.video, table.video.stream.codec_context
    first_shown = int(table.is_shown.argmax())
    # Packets that are not kept are found by seeking, which flushes this decoder, so that it cannot continue later.
    continues = table.packets is not None
    last = min(first_shown + decoder.reorder_depth + 1, len(table.pts) - 1) if continues else first_shown
    frames, num_packets = [], 0
    for number, packet in enumerate(table.stream(0, last)):
        frames = _decode_packet(decoder, packet, video)
        if frames and continues:
            num_packets = number + 1
            break
    if not num_packets:
        frames = frames or _decode_packet(decoder, None, video)
        _flush(decoder)
    if not frames:
        raise UncertainTable("the first packets give no frame")
    if frames[0].pts != table.pts[table.display_order[0]] and continues:
        raise UncertainTable("the first frame is not that of the table")
    return frames, num_packets


def decode_runs(table: PacketTable, runs: list[Run], num_threads: int, first: FirstFrames, take: Take) -> None:
    """Decode all runs and call `take` for each of their targets.

    Raises:
        UncertainTable: A packet cannot be decoded, or the frames that come out are not those of the table.
    """
    video, (first_frames, num_consumed) = table.video, first
    num_decoders, threads_each = _share_threads(video, runs, num_threads)
    if not all(table.fits_memory(run.start, run.end) for run in runs):
        num_decoders = 1
    own = video.stream.codec_context
    continues = threads_each == 1 and num_consumed > 0 and runs[0].start == 0
    if not continues:
        _flush(own)
    uses_own = continues or num_decoders == threads_each == 1
    decoders = [own] * uses_own + [_new_decoder(video, threads_each) for _ in range(num_decoders - uses_own)]
    waiting = sorted(runs[continues:], key=lambda run: run.num_packets, reverse=True)
    shared = iter(waiting)  # each thread takes the next run
    size = first_frames[0].width, first_frames[0].height

    def work(decoder: av.VideoCodecContext) -> None:
        try:
            if continues and decoder is own:
                _decode_run(table, decoder, runs[0], size, take, first)
            for run in shared:
                _decode_run(table, decoder, run, size, take)
        except BaseException:
            waiting.clear()  # ends `shared`
            raise

    if num_decoders == 1:
        work(decoders[0])
        return
    with ThreadPoolExecutor(num_decoders) as pool:
        for future in [pool.submit(work, decoder) for decoder in decoders]:
            future.result()


def _decode_run(
    table: PacketTable,
    decoder: av.VideoCodecContext,
    run: Run,
    size: tuple[int, int],
    take: Take,
    first: FirstFrames = ([], 0),
) -> None:
    """Decode one run, whose frames must have one size; `first` where the decoder has consumed the start of it."""
    first_frames, num_consumed = first
    end = max(run.end, run.start + num_consumed - 1)
    fits = table.fits_memory(run.start, end)
    packets: Any = table.read(run.start, end) if fits else table.stream(run.start, end)
    codec, kept_times = codec_of(table.video), None
    if fits and codec in SKIPPING_CODECS and not table.has_layers:
        kept_times = run.targets.keys() | {packet.pts for packet in packets[:num_consumed]}
    required = kept_times
    if kept_times and codec == "av1":  # dav1d reads `skip_frame` only when it is opened
        needed = needed_packets(packets, kept_times)
        packets, required = (packets, None) if needed is None else (needed, required)
        kept_times = None
    reorder_depth = decoder.reorder_depth
    packets = itertools.islice(packets, num_consumed, None)
    frames = itertools.chain(first_frames, _decode_packets(decoder, packets, table.video, kept_times))
    for frame in _check_frames(frames, table, run, end, required):
        if frame.is_corrupt or (frame.width, frame.height) != size:
            raise UncertainTable("a frame is corrupt or of another size")
        if frame.pts in run.targets:
            take(run.targets[frame.pts], frame)
    if decoder.reorder_depth != reorder_depth:
        raise UncertainTable("the decoder changes how far it reorders frames")
    _flush(decoder)


def _check_frames(
    frames: Iterable[av.VideoFrame], table: PacketTable, run: Run, end: int, required: Set[int] | None
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a run that the table has; all of the table's must come, or those of the times `required`."""
    first_time = int(table.pts[run.start])
    times = np.sort(table.pts[run.start : end + 1][table.is_shown[run.start : end + 1]])
    # Pictures shown before the run's keyframe lack what they refer to; none is a target.
    expected = iter(times[times >= first_time].tolist())

    def pass_over(time: int | None) -> None:
        """Advance `expected` to `time`, or to its end for None, over frames that are not required."""
        for other in expected:
            if other == time:
                return
            if required is None or other in required:
                raise UncertainTable("a packet gives no frame, or frames come in another order than that of the table")
        if time is not None:
            raise UncertainTable("a frame has a time that is not in the table, or comes out of order")

    for frame in frames:
        if frame.pts is None or frame.pts >= first_time:
            pass_over(frame.pts)
            yield frame
    pass_over(None)


def _share_threads(video: OpenVideo, runs: list[Run], num_threads: int) -> tuple[int, int]:
    """Return how many decoders to run in parallel, and the threads inside each."""
    codec = codec_of(video)
    if num_threads == 1 or codec not in PARALLEL_CODECS:
        return 1, 1
    total, longest = sum(run.num_packets for run in runs), max(run.num_packets for run in runs)
    num_decoders = min(num_threads, len(runs))
    context = video.stream.codec_context
    frame_threads_pay = context.width * context.height >= FRAME_THREADS_MIN_PIXELS[codec]
    # Two threads of dav1d are as fast as one (0.9 to 1.05 times, measured); more were not measured.
    frame_threads_pay &= num_threads > 2 or codec != "av1"
    # PyAV's log callback, where it is turned on, can deadlock with threads inside a decoder.
    frame_threads_pay &= av.logging.get_level() is None
    if max(longest, total / num_decoders) < total / (FRAME_THREADS_GAIN if frame_threads_pay else 1):
        return num_decoders, 1
    return 1, num_threads if frame_threads_pay else 1


def _new_decoder(video: OpenVideo, num_threads: int) -> av.VideoCodecContext:
    original = video.stream.codec_context
    decoder = av.CodecContext.create(original.codec.name, "r")
    decoder.extradata = original.extradata
    decoder.options = {"max_pixels": decoder_max_pixels(video.limits)}
    for name in ("width", "height", "colorspace", "color_range", "color_primaries", "color_trc", "reorder_depth"):
        setattr(decoder, name, getattr(original, name))
    decoder.thread_count = num_threads
    decoder.thread_type = "FRAME"
    return decoder


def _decode_packets(
    decoder: av.VideoCodecContext, packets: Iterable[av.Packet], video: OpenVideo, kept_times: Set[int] | None = None
) -> Iterator[av.VideoFrame]:
    """Yield the frames of these packets; with `kept_times`, non-reference frames of other times are skipped."""
    for packet in packets:
        if kept_times is not None:
            decoder.skip_frame = "DEFAULT" if packet.pts in kept_times else "NONREF"
        yield from _decode_packet(decoder, packet, video)
    yield from _decode_packet(decoder, None, video)


def _decode_packet(decoder: av.VideoCodecContext, packet: av.Packet | None, video: OpenVideo) -> list[av.VideoFrame]:
    """Return the frames that come out for a packet, or at the end of the stream for None."""
    video.check_clock()
    try:
        return decoder.decode(packet)
    except av.FFmpegError as error:
        raise UncertainTable(f"a packet cannot be decoded: {type(error).__name__}") from error


def _flush(decoder: av.VideoCodecContext) -> None:
    reorder_depth = decoder.reorder_depth
    decoder.flush_buffers()
    decoder.skip_frame = "DEFAULT"
    # Flushing may reset the reorder depth, and the decoder would drop frames.
    decoder.reorder_depth = reorder_depth
