"""Recordings as pieces of a mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from api_schemas.preprocessing import AudioInput
from common.array_types import Float32s
from common.time_budget import check_time
from encoder.inputs.audio_decoder import decode_audio, import_soundfile, resample
from encoder.inputs.data_uri import decode_data_uri
from encoder.inputs.mel_spectrogram import compute_mel_spectrogram
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput

SILENCE = -80.0  # dB below full scale; a quiet room is recorded at -60


@dataclass(frozen=True)
class AudioPreprocessing(Preprocessing):
    """Recordings, to pieces of a mel spectrogram; see ``AudioInput``."""

    rule: AudioInput
    kind = "audio"
    layout = "map"
    takes = "recordings, as base64 data URIs of WAV or FLAC files"
    has_pieces = True

    @classmethod
    def open(cls, rule: Any, folder: Path) -> Self:
        """Checked for what decodes recordings, before the first one comes."""
        import_soundfile()
        return cls(rule)

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, mels, frames) of one piece."""
        return 1, self.rule.mels, self.rule.piece

    @property
    def most_numbers(self) -> int:
        """How many numbers all pieces of a recording have at most."""
        return self.rule.most_pieces * math.prod(self.shape)

    def describe_shape(self) -> str:
        """The shape of one piece, in words."""
        rule = self.rule
        seconds = rule.piece * rule.hop / rule.sample_rate
        size = f"{rule.mels} mel bands x {rule.piece} frames"
        return f"pieces of {size} ({seconds:g} s at {rule.sample_rate:,} Hz)"

    def prepare(self, inputs: Iterable[RawInput], first: int = 0, limits: InputLimits = LIMITS) -> Float32s:
        """Files' bytes, base64 texts or samples at the rule's rate to float32 [n, pieces, 1, mels, frames].

        Pieces that a recording lacks are NaN.
        """
        recordings = []
        for number, sound in enumerate(inputs, first):
            check_time()
            recordings.append(self.compute_pieces(self.decode(sound, number, limits), number))
        return stack_pieces(recordings)

    def decode(self, sound: RawInput, number: int, limits: InputLimits) -> Float32s:
        """Bytes, base64 text or samples as samples at the rule's rate; raises RefusedInput as ``prepare``."""
        if isinstance(sound, str):
            sound = decode_data_uri(sound, "a recording", "audio", limits.audio_bytes, number)
        if isinstance(sound, bytes):
            return resample(*decode_audio(sound, limits, number), self.rule.sample_rate)
        if isinstance(sound, np.ndarray) and sound.ndim == 1 and sound.dtype.kind == "f":
            return sound.astype(np.float32)
        raise self._build_refusal(number)

    def compute_pieces(self, samples: Float32s, number: int = 0) -> Float32s:
        """The pieces of one recording, float32 [pieces, 1, mels, frames].

        Args:
            samples: [n] at the rule's sample rate.
            number: the recording's number in error messages.

        Raises:
            RefusedInput: it is too short, or silent.
        """
        rule = self.rule
        seconds = len(samples) / rule.sample_rate
        if not len(samples) or seconds < rule.shortest:
            raise RefusedInput(
                number, f"the recording is {seconds:.2f} s long, at least {rule.shortest:g} s are needed."
            )
        level = 10 * math.log10(max(float(np.mean(np.square(samples, dtype=np.float64))), 1e-30))
        if level < SILENCE:
            raise RefusedInput(
                number,
                f"the recording is silent (below {SILENCE:g} dB of full scale): check the microphone.",
            )
        if rule.loudness is not None and level < rule.loudness:
            samples = samples * np.float32(10 ** ((rule.loudness - level) / 20))
        starts = select_pieces(len(samples), rule)
        missing = (starts[-1] + rule.piece) * rule.hop - len(samples)
        mels = compute_mel_spectrogram(np.pad(samples, (0, max(0, missing))), rule)
        pieces = np.stack([mels[None, :, start : start + rule.piece] for start in starts])
        return np.asarray((pieces - np.float32(rule.mean)) / np.float32(rule.std), np.float32)


def select_pieces(n: int, rule: AudioInput) -> Sequence[int]:
    """The first frame of each piece of a recording of n samples, ascending."""
    frames = -(-(n + 1) // rule.hop)
    starts = range(0, max(1, frames - rule.piece + rule.step + 1), rule.step)
    sound = n - starts[-1] * rule.hop
    if len(starts) > 1 and sound < rule.coverage * rule.piece * rule.hop:
        starts = starts[:-1]
    if len(starts) <= rule.most_pieces:
        return starts
    chosen = np.linspace(0, len(starts) - 1, rule.most_pieces).round().astype(int)
    return [starts[position] for position in chosen.tolist()]


def stack_pieces(recordings: Sequence[Float32s]) -> Float32s:
    """Pieces [pieces, ...] of each recording as one array [n, most pieces, ...], NaN where one has fewer."""
    most = max(map(len, recordings))
    stacked = np.full((len(recordings), most, *recordings[0].shape[1:]), np.nan, dtype=np.float32)
    for row, pieces in enumerate(recordings):
        stacked[row, : len(pieces)] = pieces
    return stacked
