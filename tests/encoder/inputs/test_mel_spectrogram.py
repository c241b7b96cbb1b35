"""Mel spectrograms against a plain loop over an explicit Fourier sum, and librosa's published numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from api_schemas.preprocessing import AudioInput
from common.errors import InputError
from encoder.inputs import mel_spectrogram
from encoder.inputs.mel_spectrogram import build_filters, compute_mel_spectrogram

# librosa.mel_frequencies(n_mels=40), from its documentation
LIBROSA_FREQUENCIES = [
    *(0.0, 85.317, 170.635, 255.952, 341.269, 426.586, 511.904, 597.221, 682.538, 767.855, 853.173, 938.49),
    *(1024.856, 1119.114, 1222.042, 1334.436, 1457.167, 1591.187, 1737.532, 1897.337, 2071.84, 2262.393),
    *(2470.47, 2697.686, 2945.799, 3216.731, 3512.582, 3835.643, 4188.417, 4573.636, 4994.285, 5453.621),
    *(5955.205, 6502.92, 7101.009, 7754.107, 8467.272, 9246.028, 10096.408, 11025.0),
]


def to_mels(hertz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hertz / 700)
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def to_hertz(mels: float, scale: str) -> float:
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return mels * 200 / 3 if mels < 15 else 1000 * 6.4 ** ((mels - 15) / 27)


def compute_slowly(samples: np.ndarray, rule: AudioInput) -> np.ndarray:
    """Every number by itself: the sum of Fourier, the triangle, the logarithm."""
    low, high = to_mels(rule.fmin, rule.scale), to_mels(rule.fmax, rule.scale)
    edges = [
        to_hertz(low + (high - low) * step / (rule.mels + 1), rule.scale) for step in range(rule.mels + 2)
    ]
    result = np.zeros((rule.mels, 1 + len(samples) // rule.hop))
    times = np.arange(rule.n_fft)
    for frame in range(result.shape[1]):
        begin = frame * rule.hop - rule.n_fft // 2
        taken = np.array([samples[t] if 0 <= t < len(samples) else 0.0 for t in begin + times])
        before = (rule.n_fft - rule.window) // 2
        for t in range(rule.n_fft):
            inside = 0 <= t - before < rule.window
            taken[t] *= math.sin(math.pi * (t - before) / rule.window) ** 2 if inside else 0.0
        for bin_ in range(1 + rule.n_fft // 2):
            power = abs(np.sum(taken * np.exp(-2j * np.pi * bin_ * times / rule.n_fft))) ** 2
            hertz = bin_ * rule.sample_rate / rule.n_fft
            for band in range(rule.mels):
                left, peak, right = edges[band : band + 3]
                if left < hertz < right:
                    weight = (
                        (hertz - left) / (peak - left) if hertz <= peak else (right - hertz) / (right - peak)
                    )
                    result[band, frame] += power * weight * (2 / (right - left) if rule.equal_area else 1)
    if rule.log == "none":
        return result
    logarithm = {"natural": np.log, "log10": np.log10, "decibel": lambda x: 10 * np.log10(x)}[rule.log]
    return logarithm(np.maximum(result, rule.floor))


@pytest.mark.parametrize(
    "keys",
    [
        {"log": "none"},
        {"log": "natural", "scale": "htk", "equal_area": False},
        {"log": "log10", "fmin": 300.0, "fmax": 3_000.0, "mels": 5},
        {"log": "decibel", "n_fft": 65, "window": 50, "hop": 21, "floor": 1e-3},
    ],
)
def test_a_plain_loop_gives_the_same(keys: dict[str, object]) -> None:
    small = {"sample_rate": 8_000, "n_fft": 64, "window": 64, "hop": 32, "mels": 8, "fmax": 4_000.0}
    rule = AudioInput.model_validate(small | keys)
    samples = np.random.default_rng(0).normal(0, 0.2, 300).astype(np.float32)
    np.testing.assert_allclose(
        compute_mel_spectrogram(samples, rule), compute_slowly(samples, rule), rtol=1e-5, atol=1e-7
    )


def test_bands_peak_where_librosa_says() -> None:
    n_fft = 22_050 * 4  # a quarter of a hertz from frequency to frequency
    filters = build_filters(22_050, n_fft, 38, 0.0, 11_025.0, "slaney", True)
    assert np.abs(filters.argmax(axis=1) / 4 - LIBROSA_FREQUENCIES[1:-1]).max() <= 0.13
    np.testing.assert_allclose(filters.sum(axis=1) / 4, 1.0, rtol=1e-3)  # of one area


def test_a_pure_tone_has_its_power_in_the_band_of_its_frequency() -> None:
    rule = AudioInput(log="none", equal_area=False)
    tone = np.sin(2 * np.pi * 1_000 * np.arange(16_000) / 16_000).astype(np.float32)
    mels = compute_mel_spectrogram(tone, rule)[:, 50]
    filters = build_filters(16_000, 400, 40, 0.0, 8_000.0, "slaney", False)
    # a sine's power under a Hann window of n: (n / 4)^2 at its frequency, a quarter of that on either side
    expected = filters[:, 25] * 100**2 + (filters[:, 24] + filters[:, 26]) * 50**2
    np.testing.assert_allclose(mels, expected, rtol=1e-5, atol=1e-3)


def test_long_recordings_are_transformed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).normal(0, 0.2, 16_000).astype(np.float32)
    whole = compute_mel_spectrogram(samples, AudioInput())
    monkeypatch.setattr(mel_spectrogram, "FRAMES_AT_ONCE", 7)
    np.testing.assert_allclose(compute_mel_spectrogram(samples, AudioInput()), whole, rtol=1e-6)


def test_bands_that_hold_no_frequency_are_refused() -> None:
    with pytest.raises(InputError, match=r"128 mel bands are too narrow for n_fft 256: .* take fewer mels"):
        build_filters(16_000, 256, 128, 0.0, 8_000.0, "slaney", True)
