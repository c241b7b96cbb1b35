"""Planted speakers: voices by source and filter (Fant 1960), so that tests need no recordings.

Pulses of a speaker's pitch, with breath, pass through resonators at the formants of five vowels, which the
length of the speaker's vocal tract and habits of the speaker's own move. What is said, how loud and how fast
differs between recordings.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from scipy.signal import lfilter

from common.array_types import Float64s

RATE = 16_000
# the first three formants of a, e, i, o, u in Hz (Peterson and Barney 1952, men)
VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]]
)
BANDWIDTHS = (80, 100, 150)


@dataclass(frozen=True)
class Speaker:
    """Pitch in Hz; formants of the vowels in Hz [5, 3]; fall of the source a sample; breath beside pulses."""

    pitch: float
    formants: Float64s
    tilt: float
    breath: float


def draw_speaker(random: Generator) -> Speaker:
    """A speaker at random."""
    habits = random.normal(1.0, 0.06, VOWELS.shape)
    formants = VOWELS * habits * random.uniform(0.85, 1.25)
    return Speaker(random.uniform(85, 250), formants, random.uniform(0.6, 0.95), random.uniform(0.01, 0.2))


def speak(speaker: Speaker, random: Generator, seconds: float) -> Float64s:
    """Some vowels in a row, with pauses: float64 [n] at ``RATE``, at most 1."""
    n = round(seconds * RATE)
    parts: list[Float64s] = []
    while sum(map(len, parts)) < n:
        length = round(random.uniform(0.08, 0.25) * RATE)
        pitch = speaker.pitch * random.normal(1.0, 0.06)
        phase = np.cumsum(np.full(length, pitch) * np.linspace(1.0, random.uniform(0.85, 1.1), length) / RATE)
        pulses = (np.diff(np.floor(phase), prepend=0.0) > 0).astype(float)
        sound = lfilter([1.0], [1.0, -speaker.tilt], pulses + speaker.breath * random.standard_normal(length))
        for formant, width in zip(speaker.formants[random.integers(len(VOWELS))], BANDWIDTHS, strict=True):
            radius = np.exp(-np.pi * width / RATE)
            sound = lfilter(
                [1.0 - radius], [1.0, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], sound
            )
        sound = np.diff(sound, prepend=0.0)  # what the lips do
        parts += [np.hanning(length) ** 0.3 * sound / np.abs(sound).max()]
        if random.random() < 0.3:
            parts.append(np.zeros(round(random.uniform(0.02, 0.1) * RATE)))
    said = np.concatenate(parts)[:n] * random.uniform(0.2, 0.9)
    return said + random.normal(0.0, 0.002, n)


def write_voices(folder: Path, speakers: int, recordings: int, seconds: float = 2.5, seed: int = 0) -> Path:
    """``folder/sNN/M.flac``: recordings of speakers, each its own."""
    random = np.random.default_rng(seed)
    for number in range(speakers):
        speaker = draw_speaker(random)
        own = folder / f"s{number:03}"
        own.mkdir(parents=True)
        for recording in range(recordings):
            length = seconds * random.uniform(0.8, 1.4)
            soundfile.write(own / f"{recording}.flac", speak(speaker, random, length), RATE)
    return folder


def encode_wav(samples: Float64s, rate: int = RATE, **options: str) -> bytes:
    """Samples [n] or [n, channels] as the bytes of a WAV file, or another format of soundfile's."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **{"format": "WAV", "subtype": "PCM_16", **options})
    return file.getvalue()
