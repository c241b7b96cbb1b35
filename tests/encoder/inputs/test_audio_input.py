"""Recordings as pieces of a spectrogram: which pieces, what is refused, and the vector of all of them."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from api_schemas.preprocessing import AudioInput, NetworkInterface
from encoder.encoder import Encoder
from encoder.inputs.audio_decoder import decode_audio
from encoder.inputs.audio_input import AudioPreprocessing, select_pieces
from encoder.inputs.mel_spectrogram import compute_mel_spectrogram
from encoder.inputs.preprocessing import RefusedInput
from encoder.network import Network
from encoder.wrapping.fit_network import fit_network
from encoder.wrapping.network_file import open_network
from encoder.wrapping.preprocessing_file import parse_preprocessing
from tests.conftest import absent
from tests.encoder.wrapping.networks import draw_weights, write_spectrogram_network
from tests.voices import RATE, draw_speaker, encode_wav, speak

RULE = AudioInput(piece=50, step=20, mels=8, shortest=0.25)


def draw_voice(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return speak(draw_speaker(random), random, seconds).astype(np.float32)


def count_slowly(n: int, rule: AudioInput) -> list[int]:
    """Pieces every ``step`` frames until one reaches the end; the last only if enough of it is sound."""
    starts = [0]
    while starts[-1] + rule.piece < -(-(n + 1) // rule.hop) + 1:
        starts.append(starts[-1] + rule.step)
    while len(starts) > 1 and n - starts[-1] * rule.hop < rule.coverage * rule.piece * rule.hop:
        starts.pop()
        break
    return starts


@pytest.mark.parametrize("coverage", [0.5, 0.75, 1.0])
def test_pieces_cover_a_recording_of_any_length(coverage: float) -> None:
    rule = RULE.model_copy(update={"coverage": coverage})
    for n in range(1, 30_000, 37):
        assert list(select_pieces(n, rule)) == count_slowly(n, rule), n


def test_of_many_pieces_as_many_as_are_taken_are_spread_evenly() -> None:
    rule = RULE.model_copy(update={"most_pieces": 5})
    starts = list(select_pieces(100 * RATE, rule))
    everything = list(select_pieces(100 * RATE, RULE.model_copy(update={"most_pieces": 256})))
    assert len(everything) == 256
    assert (len(starts), starts[0]) == (5, 0)
    assert starts[-1] > 99 * 100 - rule.piece - rule.step
    assert np.ptp(np.diff(starts)) <= rule.step


def test_a_piece_is_that_part_of_the_spectrogram_and_the_end_is_filled_with_silence() -> None:
    preprocessing = AudioPreprocessing(RULE.model_copy(update={"mean": -3.0, "std": 2.0}))
    samples = draw_voice(0.7)  # 70 frames: pieces at 0 and 20
    pieces = preprocessing.compute_pieces(samples)
    padded = np.pad(samples, (0, 70 * 160 - len(samples)))
    whole = (compute_mel_spectrogram(padded, RULE) + 3.0) / 2.0
    np.testing.assert_allclose(pieces, [whole[None, :, :50], whole[None, :, 20:70]], rtol=1e-6)
    short = preprocessing.compute_pieces(samples[: RATE // 3])
    assert short.shape == (1, 1, 8, 50)
    np.testing.assert_allclose(short[0, 0, :, 40:], (np.log(1e-10) + 3.0) / 2.0, rtol=1e-6)


def test_every_carrier_of_a_recording_gives_the_same_pieces() -> None:
    preprocessing = AudioPreprocessing(RULE)
    samples = (draw_voice(1.0) * 32_767).astype(np.int16)
    wav, flac = encode_wav(samples), encode_wav(samples, format="FLAC")
    text = base64.b64encode(wav).decode()
    carriers = [wav, flac, text, f"data:audio/wav;base64,{text}", decode_audio(wav)[0]]
    prepared = preprocessing.prepare(carriers)
    for row in prepared[1:]:
        np.testing.assert_array_equal(row, prepared[0])


def test_recordings_of_other_lengths_are_prepared_together() -> None:
    preprocessing = AudioPreprocessing(RULE)
    samples = [draw_voice(seconds, seed) for seed, seconds in enumerate((2.0, 0.3, 1.0))]
    prepared = preprocessing.prepare(samples)
    assert prepared.shape == (3, len(select_pieces(len(samples[0]), RULE)), 1, 8, 50)
    for row, own in zip(prepared, samples, strict=True):
        pieces = preprocessing.compute_pieces(own)
        np.testing.assert_array_equal(row[: len(pieces)], pieces)
        assert np.isnan(row[len(pieces) :]).all()


def test_loudness_is_raised_and_never_lowered() -> None:
    rule = RULE.model_copy(update={"loudness": -30.0, "log": "none"})
    quiet = draw_voice(1.0)
    quiet *= 0.001 / np.sqrt(np.mean(quiet**2))  # -60 dB
    raised = AudioPreprocessing(rule).compute_pieces(quiet)
    plain = AudioPreprocessing(rule.model_copy(update={"loudness": None}))
    np.testing.assert_allclose(raised, 1000 * plain.compute_pieces(quiet), rtol=1e-4)  # 30 dB of power
    loud = quiet * 200
    np.testing.assert_array_equal(AudioPreprocessing(rule).compute_pieces(loud), plain.compute_pieces(loud))


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros(0, np.float32), "the recording is 0.00 s long, at least 0.25 s are needed."),
        (draw_voice(0.2), "the recording is 0.20 s long, at least 0.25 s are needed."),
        (
            np.zeros(RATE, np.float32),
            "the recording is silent (below -80 dB of full scale): check the microphone.",
        ),
    ],
)
def test_what_says_nothing_is_refused(samples: np.ndarray, sentence: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        AudioPreprocessing(RULE).prepare([draw_voice(1.0), samples], first=4)
    assert (refused.value.number, refused.value.reason) == (5, sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data:audio/wav,abc", "a data URI must read data:audio/<type>;base64,<data>."),
        ("data:audio/wav;base64,#", "this is not a base64 data URI of a recording."),
        ("aGVsbG8=", "this is not a recording; WAV and FLAC are taken."),
    ],
)
def test_texts_that_carry_no_recording_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(RefusedInput, match=sentence):
        AudioPreprocessing(RULE).prepare([text])


@pytest.mark.parametrize(
    "keys", [{"window": 500}, {"step": 51}, {"fmax": 9_000.0}, {"fmin": 5_000.0, "fmax": 4_000.0}]
)
def test_values_that_do_not_go_together_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must (be at most|rise)"):
        AudioInput.model_validate(RULE.model_dump() | keys)


def test_a_vector_is_the_mean_of_the_unit_vectors_of_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spectrogram_network(tmp_path / "a.onnx", ("n", "t", 8))
    network = open_network(path, path.name)
    preprocessing = AudioPreprocessing(RULE)
    interface = NetworkInterface(input="mels", output="features", layout="NTF")
    encoder = Encoder(Network(network.session, preprocessing, interface), preprocessing)
    samples = [draw_voice(seconds, seed) for seed, seconds in enumerate((2.0, 0.3, 1.0))]
    expected = []
    for own in samples:
        vectors = [piece[0].mean(axis=1) @ draw_weights(8) for piece in preprocessing.compute_pieces(own)]
        mean = np.mean([vector / np.linalg.norm(vector) for vector in vectors], axis=0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(encoder.encode(samples), expected, atol=1e-5)
    monkeypatch.setattr("encoder.network.PIECES_AT_ONCE", 3)
    np.testing.assert_allclose(encoder.encode(samples), expected, atol=1e-5)


def test_the_voice_encoder_hears_who_speaks(datasets: Path) -> None:
    """Planted voices, of which a network that was trained on real ones tells far more than chance."""
    path = datasets / "encoders" / "voice_ge2e.onnx"
    if not path.is_file():
        absent(f"{path}")
    network = open_network(path, path.name, 1)
    preprocessing, interface = fit_network(parse_preprocessing({"preset": "voice_ge2e"}, "here"), network)
    assert (interface.layout, preprocessing.shape) == ("NTF", (1, 40, 160))
    encoder = Encoder(Network(network.session, preprocessing, interface), preprocessing)
    random = np.random.default_rng(1)
    speakers = [draw_speaker(random) for _ in range(8)]
    recordings = [speak(speaker, random, 3.0).astype(np.float32) for speaker in speakers for _ in range(2)]
    similarities = (vectors := encoder.encode(recordings)) @ vectors.T
    np.fill_diagonal(similarities, -1.0)
    codes = np.repeat(np.arange(8), 2)
    assert (codes[similarities.argmax(axis=1)] == codes).mean() >= 0.5
