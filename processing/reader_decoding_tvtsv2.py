"""Decoding: planned runs of packets, in parallel where that pays, or the whole stream one frame after another.

`take(index, frame)` is called for each frame wanted, by whichever thread decoded it.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import av

from .reader_container_tvtsv2 import OpenVideo, decoder_max_pixels, reading_errors
from .reader_packets_tvtsv2 import PacketReader, PacketTable, UncertainTable, codec_of
from .reader_plan_tvtsv2 import Run, may_skip, needed_packets

# Coded formats that a second decoder reads alike from the stream's parameters alone.
PARALLEL_CODECS = frozenset({"av1", "h264", "hevc", "vp8", "vp9"})

# What frame threads gain on two cores, and the frame size below which they cost more than they give: measured.
FRAME_THREADS_GAIN = 1.35
FRAME_THREADS_MIN_PIXELS = {"vp8": 480 * 320, "vp9": 480 * 320, "h264": 800 * 450, "hevc": 800 * 450, "av1": 800 * 450}

Take = Callable[[int, av.VideoFrame], None]


@dataclass
class Damage:
    """What a sequential decode had to pass over."""

    num_packets: int = 0
    num_undecodable_packets: int = 0
    is_truncated: bool = False


def decode_sequentially(video: OpenVideo, damage: Damage) -> Iterator[av.VideoFrame]:
    """Every frame in display order by one single-threaded decoder; notes in `damage` what had to be passed over."""
    packets = video.container.demux(video.stream)
    packet = None
    while True:
        video.check_clock()
        with reading_errors(video.name):
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                damage.is_truncated, packet = True, None
            try:
                frames = video.stream.codec_context.decode(packet)
            except av.EOFError:  # drained already
                frames = []
            except av.FFmpegError:
                damage.num_undecodable_packets += 1
                frames = []
        yield from frames
        if packet is None:
            return
        damage.num_packets += packet.size > 0


@dataclass
class Beginning:
    """What decoding the first frame has done already of a run from the start of the stream.

    Attributes:
        frames: The first frames shown, at least one.
        num_packets: How many packets the container's own decoder was given for them, and goes on behind; 0 where it
            was flushed.
    """

    frames: list[av.VideoFrame]
    num_packets: int


def decode_beginning(video: OpenVideo, table: PacketTable, reader: PacketReader) -> Beginning:
    """Decodes from the start of the stream until a frame comes out, for its size and rotation.

    This readies the decoder for runs from further on: some take facts about the stream from its first packet.

    Raises:
        UncertainTable: No frame comes out.
    """
    decoder = video.stream.codec_context
    first_shown = int(table.is_shown.argmax())
    # Packets that are not kept are found by seeking, which flushes this decoder: it cannot go on later.
    goes_on = reader.kept is not None
    last = min(first_shown + decoder.reorder_depth + 1, len(table.pts) - 1) if goes_on else first_shown
    frames = []
    for number, packet in enumerate(reader.stream(0, last)):
        frames = _decode_packet(decoder, packet, video)
        if frames and goes_on:
            if frames[0].pts != table.pts[table.display_order[0]]:
                raise UncertainTable("a packet at the start gave no frame")
            return Beginning(frames, num_packets=number + 1)
    frames = frames or _decode_packet(decoder, None, video)
    _flush(decoder, video)
    if not frames:
        raise UncertainTable("the first packets give no frame")
    return Beginning(frames, num_packets=0)


def decode_runs(
    video: OpenVideo,
    table: PacketTable,
    reader: PacketReader,
    runs: list[Run],
    num_threads: int,
    beginning: Beginning,
    take: Take,
) -> None:
    """Decodes all runs and calls `take` for each of their targets.

    Raises:
        UncertainTable: A packet cannot be decoded, or the frames that come out are not those the table says.
    """
    num_decoders, threads_each = _share_threads(video, runs, num_threads)
    if not all(reader.fits_memory(run.start, run.end) for run in runs):
        num_decoders = 1
    own = video.stream.codec_context
    goes_on = threads_each == 1 and beginning.num_packets > 0 and runs[0].start == 0
    if not goes_on:
        _flush(own, video)
    uses_own = goes_on or num_decoders == threads_each == 1
    decoders = [own] * uses_own + [_new_decoder(video, threads_each) for _ in range(num_decoders - uses_own)]
    waiting = sorted(runs[goes_on:], key=lambda run: run.num_packets)

    def runs_for(decoder: av.VideoCodecContext) -> Iterator[tuple[Run, Beginning | None]]:
        if goes_on and decoder is own:
            yield runs[0], beginning
        while waiting:
            try:
                run = waiting.pop()
            except IndexError:  # another worker took the last
                return
            yield run, None

    def work(decoder: av.VideoCodecContext) -> None:
        for run, begun in runs_for(decoder):
            try:
                _decode_run(decoder, video, table, reader, run, take, begun)
            except BaseException:
                waiting.clear()
                raise

    if num_decoders == 1:
        work(decoders[0])
        return
    with ThreadPoolExecutor(num_decoders) as pool:
        for future in [pool.submit(work, decoder) for decoder in decoders]:
            future.result()


def _share_threads(video: OpenVideo, runs: list[Run], num_threads: int) -> tuple[int, int]:
    """How many decoders to run side by side, and the threads inside each."""
    codec = codec_of(video)
    if num_threads == 1 or codec not in PARALLEL_CODECS:
        return 1, 1
    total, longest = sum(run.num_packets for run in runs), max(run.num_packets for run in runs)
    num_decoders = min(num_threads, len(runs))
    context = video.stream.codec_context
    frame_threads_pay = context.width * context.height >= FRAME_THREADS_MIN_PIXELS[codec]
    # Two threads of dav1d do what one does (0.9 to 1.05 times as fast, measured); more were not measured.
    frame_threads_pay &= num_threads > 2 or codec != "av1"
    # PyAV's log callback, when someone has turned it on, can deadlock with threads inside a decoder.
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


def _decode_run(
    decoder: av.VideoCodecContext,
    video: OpenVideo,
    table: PacketTable,
    reader: PacketReader,
    run: Run,
    take: Take,
    beginning: Beginning | None = None,
) -> None:
    num_given, frames_given = (beginning.num_packets, beginning.frames) if beginning else (0, [])
    end = max(run.end, run.start + num_given - 1)
    fits = reader.fits_memory(run.start, end)
    packets = reader.read(run.start, end) if fits else reader.stream(run.start, end)
    skips = fits and may_skip(packets, video)
    kept_times = run.targets.keys() | {packet.pts for packet in packets[:num_given]} if skips else None
    if skips and codec_of(video) == "av1":  # whose decoder skips from its start on or never
        needed, kept_times = needed_packets(packets, kept_times), None
        skips, packets = needed is not None, packets if needed is None else needed
    packets = itertools.islice(packets, num_given, None)
    numbers = range(run.start, end + 1)
    # Pictures shown before the run's keyframe lack what they refer to; they are nobody's target.
    first_time = int(table.pts[run.start])
    expected = {int(table.pts[n]) for n in numbers if table.is_shown[n] and table.pts[n] >= first_time}
    targets = dict(run.targets)
    must_come = set(targets) if skips else set(expected)
    for frame in itertools.chain(frames_given, _decode_packets(decoder, packets, video, kept_times)):
        if frame.pts is None or frame.pts < first_time:
            continue
        if frame.is_corrupt or frame.pts not in expected:
            raise UncertainTable("a frame is corrupt or has an unknown presentation time")
        expected.discard(frame.pts)
        must_come.discard(frame.pts)
        if frame.pts in targets:
            take(targets.pop(frame.pts), frame)
    if must_come:
        raise UncertainTable("a packet gave no frame")
    _flush(decoder, video)


def _decode_packets(
    decoder: av.VideoCodecContext, packets: Iterable[av.Packet], video: OpenVideo, kept_times: Set[int] | None = None
) -> Iterator[av.VideoFrame]:
    """The frames of these packets; with `kept_times`, non-reference frames of other times may be left out."""
    for packet in packets:
        if kept_times is not None:
            decoder.skip_frame = "DEFAULT" if packet.pts in kept_times else "NONREF"
        yield from _decode_packet(decoder, packet, video)
    yield from _decode_packet(decoder, None, video)


def _decode_packet(decoder: av.VideoCodecContext, packet: av.Packet | None, video: OpenVideo) -> list[av.VideoFrame]:
    """The frames that come out for a packet, or at the end of them for None."""
    video.check_clock()
    try:
        return decoder.decode(packet)
    except av.FFmpegError as error:
        raise UncertainTable(f"a packet cannot be decoded: {type(error).__name__}") from error


def _flush(decoder: av.VideoCodecContext, video: OpenVideo) -> None:
    reorder_depth = decoder.reorder_depth
    decoder.flush_buffers()
    decoder.skip_frame = "DEFAULT"
    # Flushing may forget how far frames are reordered, and the decoder would drop some.
    decoder.reorder_depth = reorder_depth
