"""Recordings out of bytes: what is taken, what it becomes, and refusals before anything is unpacked."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
import soundfile

from common.errors import MissingExtra
from encoder.inputs import audio_decoder
from encoder.inputs.audio_decoder import decode_audio, resample
from encoder.inputs.preprocessing import LIMITS, InputLimits, RefusedInput
from tests.voices import RATE, encode_wav

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)


def refuse(content: bytes, limits: InputLimits = LIMITS) -> str:
    with pytest.raises(RefusedInput) as refused:
        decode_audio(content, limits, 7)
    assert refused.value.number == 7
    assert "\n" not in refused.value.reason
    return refused.value.reason


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"subtype": "PCM_16"}, 1e-4),
        ({"subtype": "PCM_24"}, 1e-6),
        ({"subtype": "PCM_32"}, 1e-7),
        ({"subtype": "FLOAT"}, 1e-7),
        ({"subtype": "DOUBLE"}, 1e-7),
        ({"subtype": "PCM_U8"}, 1e-2),
        ({"subtype": "ULAW"}, 3e-2),
        ({"format": "FLAC", "subtype": "PCM_16"}, 1e-4),
        ({"format": "FLAC", "subtype": "PCM_24"}, 1e-6),
        ({"format": "WAVEX", "subtype": "PCM_16"}, 1e-4),
    ],
)
def test_samples_are_those_that_were_written(options: dict[str, str], tolerance: float) -> None:
    samples, rate = decode_audio(encode_wav(TONE, **options))
    assert (rate, samples.dtype) == (RATE, np.float32)
    np.testing.assert_allclose(samples, TONE, atol=tolerance)


def test_channels_are_averaged() -> None:
    both = np.stack([TONE, 0.5 * TONE], axis=1)
    np.testing.assert_allclose(decode_audio(encode_wav(both))[0], 0.75 * TONE, atol=1e-4)


def test_long_recordings_are_decoded_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_wav(np.stack([TONE, TONE], axis=1), format="FLAC")
    whole, _ = decode_audio(content)
    monkeypatch.setattr(audio_decoder, "BLOCK", 1000)
    np.testing.assert_array_equal(decode_audio(content)[0], whole)


def test_a_small_file_that_unpacks_to_hours_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode_wav(np.zeros(1200 * RATE), format="FLAC")
    assert len(content) < 300_000
    monkeypatch.setattr(soundfile.SoundFile, "read", None)  # which would be called to decode
    assert refuse(content) == "the recording is 1,200 s long, at most 600 s are taken: cut it first."
    assert "at most 2 s" in refuse(content, InputLimits(audio_seconds=2.0))


def test_of_a_flac_file_no_more_is_decoded_than_its_header_says() -> None:
    content = bytearray(encode_wav(np.tile(TONE, 4), format="FLAC"))
    # STREAMINFO ends with 36 bits of samples, of which the last 32 are bytes 22 to 25 of the file
    assert struct.unpack(">I", content[22:26])[0] == 4 * RATE
    content[22:26] = struct.pack(">I", RATE)
    assert len(decode_audio(bytes(content))[0]) == RATE
    content[22:26] = bytes(4)  # unknown, as encoders write it to a pipe
    assert "does not say how long it is" in refuse(bytes(content))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_flac_file_that_was_cut_off_is_refused(part: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * RATE)
    content = encode_wav(noise, format="FLAC")
    reason = refuse(content[: int(part * len(content))])
    assert reason.startswith("the recording ends after") or "broken" in reason


def test_what_is_no_recording_never_reaches_a_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    ogg = encode_wav(TONE, format="OGG", subtype="VORBIS")
    monkeypatch.setattr(soundfile, "SoundFile", None)
    for content in (b"", b"RIFF", b"\x89PNG\r\n\x1a\n", b"RIFF0000AVI LIST", ogg):
        assert refuse(content) == "this is not a recording; WAV and FLAC are taken."


def test_other_refusals_are_sentences() -> None:
    assert "stored as IMA_ADPCM" in refuse(encode_wav(TONE, subtype="IMA_ADPCM"))
    assert "has 9 channels" in refuse(encode_wav(np.zeros((100, 9))))
    assert "has 2000 samples a second" in refuse(encode_wav(TONE, rate=2000))
    assert "at most 1000 are taken" in refuse(encode_wav(TONE), InputLimits(audio_bytes=1000))
    broken = TONE.copy()
    broken[5] = np.nan
    assert "NaN or infinite" in refuse(encode_wav(broken, subtype="FLOAT"))
    assert refuse(b"fLaC" + bytes(100)).startswith("the recording is broken")


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_removes_what_would_alias(rate: int) -> None:
    time = np.arange(2 * rate) / rate
    target = np.arange(2 * RATE) / RATE
    inside = slice(RATE // 10, -RATE // 10)  # the filter's ends see zeros beyond the recording
    got = resample(np.sin(2 * np.pi * 440 * time).astype(np.float32), rate, RATE)
    assert len(got) == len(target)
    np.testing.assert_allclose(got[inside], np.sin(2 * np.pi * 440 * target)[inside], atol=2e-3)
    if rate > 2 * 9_500:
        high = resample(np.sin(2 * np.pi * 9_500 * time).astype(np.float32), rate, RATE)
        assert np.abs(high[inside]).max() < 5e-3


def test_without_soundfile_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtra, match=r"a model of sounds needs the extra 'audio'"):
        decode_audio(b"")
