"""The sound of a video file as pieces of mono samples, streamed: memory does not grow with the file's length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.stream import Discard

from processing import VideoLimits, VideoReadingError
from processing.reader_container_tvtsv2 import OpenVideo, demux, open_video, reading_errors
from processing.reader_frames_tvtsv2 import MAX_DAMAGED_RATIO

PIECE_SECONDS = 30.0  # Whisper's window; other models take pieces of any length
CUT_SECONDS = 10.0  # the end of a piece in which it is cut, where it is quietest
QUIET_SECONDS = 0.2
SILENCE_LEVEL = 10 ** (-60 / 20)  # of full scale; the loudest 0.2 s of a piece without speech may reach it
LEVEL_RATE = 8000  # samples per second, where only the level counts
MAX_GAP_SECONDS = 0.2  # between two frames, where a piece ends and the next one begins
LIMITS = VideoLimits()


@dataclass(frozen=True)
class SoundPiece:
    """Samples float32 (n,) in [-1, 1], and the time of the first one in seconds on the file's clock."""

    start_seconds: float
    samples: np.ndarray


@dataclass
class SoundDamage:
    """How many packets an audio track has, and how many of them do not decode."""

    num_packets: int = 0
    num_lost: int = 0

    def __str__(self) -> str:
        return f"{self.num_lost} of the {self.num_packets} packets of its audio track do not decode"


def read_pieces(video: str | Path, sampling_rate: int, damage: SoundDamage | None = None) -> Iterator[SoundPiece]:
    """Yield the pieces of a video's audio track, of several FFmpeg's choice, in which anything can be heard.

    A piece has at most `PIECE_SECONDS`, and ends at a quiet place.

    Args:
        video: the file.
        sampling_rate: of the samples, per second.
        damage: counts what does not decode, which leaves gaps.

    Raises:
        VideoReadingError: the file cannot be read, has no audio track, nothing of the track can be decoded, or (after
            the last piece) more than 5 % of its packets cannot.
    """
    damage = SoundDamage() if damage is None else damage
    with open_video(video, LIMITS) as opened, reading_errors(opened.name):
        pending, start = np.empty(0, np.float32), 0.0
        for time, samples in _read_samples(opened, sampling_rate, damage):
            expected = start + len(pending) / sampling_rate
            if len(pending) and abs(time - expected) > MAX_GAP_SECONDS:
                yield from _audible(SoundPiece(start, pending), sampling_rate)
                pending = pending[:0]
            if not len(pending):
                start = time
            pending = np.concatenate([pending, samples])
            while len(pending) >= PIECE_SECONDS * sampling_rate:
                end = _quiet_place(pending, sampling_rate)
                yield from _audible(SoundPiece(start, pending[:end]), sampling_rate)
                pending, start = pending[end:], start + end / sampling_rate
        yield from _audible(SoundPiece(start, pending), sampling_rate)


def silent_stretches(video: str | Path) -> list[tuple[float, float]]:
    """Return the stretches [start, end) in seconds on the file's clock in which nothing can be heard.

    Where the track has gaps, or has ended, nothing is known. So it is with sound that is missing, cannot be read, or is
    silent from end to end: the words are then not from it.
    """
    stretches: list[tuple[float, float]] = []
    has_sound = False
    try:
        with open_video(video, LIMITS) as opened, reading_errors(opened.name):
            for start, samples in _read_samples(opened, LEVEL_RATE, SoundDamage()):
                if _is_audible(samples, LEVEL_RATE):
                    has_sound = True
                    continue
                end = start + len(samples) / LEVEL_RATE
                if stretches and start - stretches[-1][1] <= MAX_GAP_SECONDS:
                    start = stretches.pop()[0]
                stretches.append((start, end))
    except VideoReadingError:
        return []
    return stretches if has_sound else []


def _read_samples(video: OpenVideo, sampling_rate: int, damage: SoundDamage) -> Iterator[tuple[float, np.ndarray]]:
    """Yield blocks of about a second of samples, each with its time; packets that cannot be decoded leave gaps."""
    stream = video.container.streams.best("audio")
    if stream is None or stream.codec_context is None:
        raise video.error("it has no audio track." if stream is None else "FFmpeg has no decoder for its audio track.")
    video.stream.discard, stream.discard = Discard.all, Discard.default
    origin = (video.container.start_time or 0) / av.time_base
    resampler, layout, blocks, start, num_samples = None, None, [], 0.0, 0
    num_frames = 0
    for frame in _decode(video, stream, damage):
        num_frames += 1
        expected = start + num_samples / sampling_rate
        time = expected if frame.time is None else frame.time - origin
        video.check_duration(time)
        changed = layout != (frame.format.name, frame.layout.name, frame.sample_rate)
        if changed or num_samples >= sampling_rate or abs(time - expected) > MAX_GAP_SECONDS:
            if num_samples:
                yield start, np.concatenate(blocks)
            blocks, num_samples, start = [], 0, time
        if changed:
            layout = (frame.format.name, frame.layout.name, frame.sample_rate)
            # Integers: the mean of the channels, while floating point would be their sum over the root of two.
            resampler = av.AudioResampler(format="s16", layout="mono", rate=sampling_rate)
        frame.pts = None
        for resampled in resampler.resample(frame):
            blocks.append(resampled.to_ndarray()[0].astype(np.float32) / 2**15)
            num_samples += len(blocks[-1])
    if not num_frames:
        raise video.error("nothing of its audio track can be decoded.")
    if num_samples:
        yield start, np.concatenate(blocks)
    if damage.num_lost > MAX_DAMAGED_RATIO * damage.num_packets:
        raise video.error(f"{damage}.")


def _decode(video: OpenVideo, stream: av.AudioStream, damage: SoundDamage) -> Iterator[av.AudioFrame]:
    for packet in demux(video, stream):
        damage.num_packets += packet.size > 0
        try:
            frames = packet.decode()
        except av.FFmpegError:  # the gap shows in the next frame's time
            damage.num_lost += 1
            continue
        damage.num_lost += any(frame.is_corrupt for frame in frames)
        yield from frames


def _quiet_place(samples: np.ndarray, sampling_rate: int) -> int:
    """Return the middle of the quietest window in the last seconds of a piece, as an index."""
    window, end = round(QUIET_SECONDS * sampling_rate), round(PIECE_SECONDS * sampling_rate)
    first = end - round(CUT_SECONDS * sampling_rate)
    energies = np.square(samples[first:end].reshape(-1, window)).sum(1)
    return first + int(energies.argmin()) * window + window // 2


def _audible(piece: SoundPiece, sampling_rate: int) -> Iterator[SoundPiece]:
    """Yield the piece if it has any sound: recognizers invent words for silence."""
    if _is_audible(piece.samples, sampling_rate):
        yield piece


def _is_audible(samples: np.ndarray, sampling_rate: int) -> bool:
    window = round(QUIET_SECONDS * sampling_rate)
    squares = np.square(samples)
    padded = np.pad(squares, (0, -len(squares) % window)).reshape(-1, window)
    return len(squares) > 0 and bool(np.sqrt(padded.mean(1).max()) > SILENCE_LEVEL)
