"""Narration spoken by espeak-ng's voices, with the time of every word, and muxed with a video."""

import ctypes
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from training.narrated_shapes.scripts import NarratedVideo

VOICES = ("en-us", "en-us+f2", "en-us+f4", "en-us+m2", "en-us+m3", "en-us+m4")  # as the recognizer was trained on
SPEEDS = (160, 240)  # words per minute
PAUSE_SECONDS = (0.0, 0.3)  # before each narration
BACKGROUNDS = {  # dB below the voice
    "none": None,
    "noise, 25 dB": ("noise", 25),
    "noise, 20 dB": ("noise", 20),
    "music, 20 dB": ("music", 20),
}
CHORD_SECONDS = 0.8

# A word, and when it begins in seconds; None where the synthesizer does not say.
SpokenWord = tuple[str, float | None]


class _Event(ctypes.Structure):
    """espeak_EVENT. Source: speak_lib.h of espeak-ng 1.51."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique_identifier", "text_position", "length")),
        *((name, ctypes.c_int) for name in ("audio_position", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
_SYNCHRONOUS, _RATE, _CHARACTERS, _UTF8, _END, _WORD = 2, 1, 1, 1, 0, 1


class Speaker:
    """espeak-ng through its library, which reports when each word begins."""

    def __init__(self):
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._callback = _Callback(self._take)  # kept: the library does not hold it
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, speed: int) -> tuple[np.ndarray, dict[int, float]]:
        """Return samples float32 (n,) and the time in seconds at which words begin, by their place in the text."""
        self._blocks, self._starts = [], {}
        if self._library.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng has no voice {voice!r}; install Debian's espeak-ng-data.")
        self._library.espeak_SetParameter(_RATE, speed, 0)
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
        times = {len(text[: position - 1].split()): seconds for position, seconds in self._starts.items()}
        return np.concatenate(self._blocks), times

    def _take(self, samples, num_samples: int, events) -> int:
        if samples and num_samples:
            self._blocks.append(np.ctypeslib.as_array(samples, (num_samples,)).astype(np.float32) / 2**15)
        index = 0
        while events[index].type != _END:
            if events[index].type == _WORD:
                self._starts[events[index].text_position] = events[index].audio_position / 1000
            index += 1
        return 0


def speak(narrated: NarratedVideo, speaker: Speaker, rng: np.random.Generator) -> tuple[np.ndarray, list[SpokenWord]]:
    """Return the sound of a whole video, float32 (n,) at `speaker.rate`, and the words spoken with their times."""
    sound = np.zeros(round(narrated.events[-1].end_seconds * speaker.rate), np.float32)
    voice, speed, words = str(rng.choice(VOICES)), int(rng.integers(*SPEEDS)), []
    for event, sentence in zip(narrated.events, narrated.sentences, strict=True):
        start = event.start_seconds + rng.uniform(*PAUSE_SECONDS)
        samples, times = speaker.say(sentence, voice, speed)
        room = event.end_seconds - start
        if len(samples) > room * speaker.rate:
            samples, times = speaker.say(sentence, voice, int(speed * 1.05 * len(samples) / room / speaker.rate))
        first = round(start * speaker.rate)
        samples = samples[: len(sound) - first]
        sound[first : first + len(samples)] += samples
        spoken = sentence.split()
        # The library speaks some words as one ("on the"): the second has no time of its own.
        words += [(word, start + times[place] if place in times else None) for place, word in enumerate(spoken)]
    return sound, words


def add_background(sound: np.ndarray, name: str, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sound with one of `BACKGROUNDS`: so many dB below the power of what is not silent."""
    if BACKGROUNDS[name] is None:
        return sound
    kind, level = BACKGROUNDS[name]
    added = _chords(len(sound), rate, rng) if kind == "music" else rng.normal(0, 1, len(sound))
    power = np.square(sound[np.abs(sound) > 0.01]).mean()
    return sound + (added * np.sqrt(power / 10 ** (level / 10) / np.square(added).mean())).astype(np.float32)


def _chords(num_samples: int, rate: int, rng: np.random.Generator) -> np.ndarray:
    """Return chords of three fading notes, one after another, float64 (num_samples,)."""
    times = np.arange(num_samples) / rate
    chords, place = np.divmod(times, CHORD_SECONDS)
    roots = rng.integers(-12, 12, int(chords[-1]) + 1)[chords.astype(int)]  # semitones from 220 Hz
    notes = [np.sin(2 * np.pi * 220 * 2 ** ((roots + step) / 12) * place) for step in (0, 4, 7)]
    return sum(notes) * np.exp(-2 * place)


def mux(video: Path, sound: np.ndarray, rate: int, path: Path) -> None:
    """Write a video's packets with `sound` as an AAC track beside them."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        pictures = target.add_stream_from_template(source.streams.video[0])
        track = target.add_stream("aac", rate=rate, layout="mono", options={"aac_coder": "fast"})
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = pictures
                target.mux(packet)
        for start in range(0, len(sound), 1024):
            frame = av.AudioFrame.from_ndarray(sound[None, start : start + 1024].clip(-1, 1), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
