"""Recordings out of untrusted bytes: the one decoder of training, wrapping and serving."""

from __future__ import annotations

import io
from functools import partial
from math import gcd
from types import ModuleType
from typing import cast

import numpy as np

from common.array_types import Float32s
from common.errors import needs
from encoder.inputs.preprocessing import LIMITS, InputLimits, RefusedInput

FORMATS = ("WAV", "FLAC")
# plain samples; the rarer codecs of libsndfile are attack surface without use
ENCODINGS = frozenset(("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"))
MOST_CHANNELS = 8
LEAST_RATE, MOST_RATE = 4_000, 192_000
MOST_SAMPLES = 64_000_000  # of all channels: eleven minutes of stereo at 48 kHz
UNKNOWN = 1 << 62  # frames, as libsndfile says it
BLOCK = 1 << 18  # samples of all channels that are decoded at once


def check_bytes(size: int, limits: InputLimits = LIMITS, number: int = 0) -> None:
    """Raises RefusedInput for a recording's file of too many bytes."""
    if size > limits.audio_bytes:
        raise RefusedInput(number, f"the recording has {size} bytes, at most {limits.audio_bytes} are taken.")


def decode_audio(content: bytes, limits: InputLimits = LIMITS, number: int = 0) -> tuple[Float32s, int]:
    """The samples of a WAV or FLAC file, all channels averaged, and how many there are a second.

    The length that the header says is checked before a sample is decoded; no more of them are.

    Args:
        number: the recording's number in error messages.

    Returns:
        float32 [n], full scale is 1; samples a second.

    Raises:
        RefusedInput: of another format, broken, or too long. MissingExtra: soundfile is not installed.
    """
    soundfile = import_soundfile()
    refuse = partial(RefusedInput, number)
    check_bytes(len(content), limits, number)
    is_wav = content[:4] == b"RIFF" and content[8:12] == b"WAVE"
    if not is_wav and content[:4] != b"fLaC":  # before any other decoder sees it
        raise refuse(f"this is not a recording; {' and '.join(FORMATS)} are taken.")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            rate, channels, n = file.samplerate, file.channels, file.frames
            if file.subtype not in ENCODINGS:
                raise refuse(f"its samples are stored as {file.subtype}: save it as 16-bit WAV or as FLAC.")
            if not LEAST_RATE <= rate <= MOST_RATE:
                raise refuse(f"it has {rate} samples a second, {LEAST_RATE} to {MOST_RATE} are taken.")
            if channels > MOST_CHANNELS:
                raise refuse(f"it has {channels} channels, at most {MOST_CHANNELS} are taken.")
            most = min(int(limits.audio_seconds * rate), MOST_SAMPLES // channels)
            if n >= UNKNOWN:
                raise refuse("the recording does not say how long it is: save it to a file, not to a pipe.")
            if n > most:
                seconds = f"{n / rate:,.0f} s long, at most {most / rate:,.0f} s are taken"
                raise refuse(f"the recording is {seconds}: cut it first.")
            parts, seen = [np.empty(0, np.float32)], 0
            while len(block := file.read(max(1, BLOCK // channels), dtype="float32", always_2d=True)):
                seen += len(block)
                parts.append(block.mean(axis=1))
    except (RefusedInput, MemoryError):
        raise
    except Exception as error:  # libsndfile's binding raises exceptions of its own on broken files
        raise refuse(f"the recording is broken ({type(error).__name__}).") from None
    if seen < n:
        raise refuse(f"the recording ends after {seen / rate:.1f} of {n / rate:.1f} s: save it again.")
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise refuse("the recording has samples that are NaN or infinite: save it again.")
    return samples, rate


def resample(samples: Float32s, rate: int, target: int) -> Float32s:
    """Samples at another rate, float32 [ceil(n * target / rate)], low-pass filtered against aliases."""
    if rate == target:
        return samples
    from scipy.signal import resample_poly  # a second to import, which other encoders need not wait for

    common = gcd(rate, target)
    resampled = resample_poly(samples.astype(np.float64), target // common, rate // common)
    return np.asarray(resampled, np.float32)


def import_soundfile() -> ModuleType:
    """The package, which is optional; raises MissingExtra where it is not installed."""
    with needs("a model of sounds", "audio"):
        import soundfile
    return cast(ModuleType, soundfile)
