"""Mel spectrograms, in librosa's conventions: one function of training and of serving."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from api_schemas.preprocessing import AudioInput, MelScale
from common.array_types import Float32s, Float64s
from common.errors import InputError

FRAMES_AT_ONCE = 4096
# Slaney's scale (Auditory Toolbox, 1998): linear up to 1 kHz, then logarithmic
LINEAR_HZ, BREAK_HZ, STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def compute_mel_spectrogram(samples: Float32s, rule: AudioInput) -> Float32s:
    """The mel spectrogram of a whole recording, before ``mean`` and ``std``.

    Frame t is centred on sample ``t * hop``; zeros lie before the first sample and after the last.

    Args:
        samples: [n] at the rule's sample rate.

    Returns:
        float32 [mels, 1 + n // hop].
    """
    half = rule.n_fft // 2
    padded = np.pad(np.asarray(samples, np.float64), (half, half + rule.n_fft % 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, rule.n_fft)[:: rule.hop]
    frames = frames[: 1 + len(samples) // rule.hop]
    window, filters = (
        build_window(rule.window, rule.n_fft),
        build_filters(
            rule.sample_rate, rule.n_fft, rule.mels, rule.fmin, rule.fmax, rule.scale, rule.equal_area
        ),
    )
    mels = np.empty((rule.mels, len(frames)), dtype=np.float32)
    for start in range(0, len(frames), FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(frames[start : start + FRAMES_AT_ONCE] * window)
        power = spectrum.real**2 + spectrum.imag**2
        mels[:, start : start + FRAMES_AT_ONCE] = _take_log(filters @ power.T, rule)
    return mels


def build_window(length: int, n_fft: int) -> Float64s:
    """A periodic Hann window of ``length`` samples in the middle of ``n_fft``, float64 [n_fft]."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    before = (n_fft - length) // 2
    return np.pad(window, (before, n_fft - length - before))


@lru_cache(maxsize=16)
def build_filters(
    sample_rate: int, n_fft: int, mels: int, fmin: float, fmax: float, scale: MelScale, equal_area: bool
) -> Float64s:
    """Triangles, evenly spaced on the mel scale, each from its lower neighbour's peak to its upper one's.

    Returns:
        float64 [mels, 1 + n_fft // 2], their weights at the frequencies of the transform.

    Raises:
        InputError: a triangle that holds no such frequency.
    """
    low, high = _to_mels(np.array([fmin, fmax]), scale)
    edges = _to_hertz(np.linspace(low, high, mels + 2), scale)[:, None]
    frequencies = np.arange(1 + n_fft // 2) * sample_rate / n_fft
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters: Float64s = np.maximum(0.0, np.minimum(rising, falling))
    if equal_area:
        filters *= 2 / (edges[2:] - edges[:-2])
    empty = np.flatnonzero(~filters.any(axis=1))
    if len(empty):
        band = f"{edges[empty[0], 0]:.0f} to {edges[empty[0] + 2, 0]:.0f} Hz"
        raise InputError(
            f"{mels} mel bands are too narrow for n_fft {n_fft}: no frequency lies in that of {band}; take "
            "fewer mels, or a larger n_fft."
        )
    return filters


def _to_mels(hertz: Float64s, scale: MelScale) -> Float64s:
    if scale == "htk":
        return np.asarray(2595 * np.log10(1 + hertz / 700))
    above = BREAK_HZ / LINEAR_HZ + np.log(np.maximum(hertz, BREAK_HZ) / BREAK_HZ) / STEP
    return np.where(hertz < BREAK_HZ, hertz / LINEAR_HZ, above)


def _to_hertz(mels: Float64s, scale: MelScale) -> Float64s:
    if scale == "htk":
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    top = BREAK_HZ / LINEAR_HZ
    return np.where(mels < top, mels * LINEAR_HZ, BREAK_HZ * np.exp(STEP * (np.maximum(mels, top) - top)))


def _take_log(power: Float64s, rule: AudioInput) -> Float64s:
    if rule.log == "none":
        return power
    if rule.log == "natural":
        return np.log(np.maximum(power, rule.floor))
    factor = 10.0 if rule.log == "decibel" else 1.0
    return np.asarray(factor * np.log10(np.maximum(power, rule.floor)))
