"""Recordings from a folder to a decision over HTTP: by an encoder that exists, and by one trained here."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from PIL import Image

from common.errors import InputError
from embeddings.files import read_embeddings
from encoder import Encoder, RefusedInput
from index.bundle import verify_bundle
from index.gallery.gallery import Gallery
from limen.client import Client, ServiceError
from limen.pipeline.embed_data import embed_with_bundle
from limen.pipeline.wrap_encoder import build_config
from tests.conftest import ROOT
from tests.encoder.wrapping.networks import write_spectrogram_network
from tests.limen.conftest import Limen, run_limen
from tests.service.bundles import serve
from tests.voices import encode_wav, write_voices

PREPARED = "kind: audio\nmels: 8\npiece: 50\nmean: -6.0\nshortest: 0.3\n"


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten speakers with three recordings each."""
    return write_voices(tmp_path_factory.mktemp("data") / "voices", speakers=10, recordings=3, seconds=1.2)


@pytest.fixture(scope="module")
def wrapped(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrapped")
    (folder / "prep.yaml").write_text(PREPARED)
    outcome = run_limen(
        "wrap", write_spectrogram_network(folder / "net.onnx"), "--data", voices, "--preprocessing",
        folder / "prep.yaml", "--out", folder / "bundle", "--thumbnails", 32,
        "--set", "calibration.targets={fpir: 0.1}",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "takes recordings in pieces of 8 mel bands x 50 frames (0.5 s at 16,000 Hz)" in outcome.err
    return folder / "bundle"


def build_uri(content: bytes) -> str:
    return "data:audio/wav;base64," + base64.b64encode(content).decode()


def test_posted_bytes_get_the_stored_vector_and_its_decision(wrapped: Path, voices: Path) -> None:
    assert verify_bundle(wrapped).name == "bundle"
    gallery, encoder = Gallery.open(wrapped), Encoder.open(wrapped)
    files = sorted(voices.rglob("*.flac"))
    samples, rate = soundfile.read(files[0], dtype="int16")
    with serve(wrapped, data=wrapped.parent / "data", thumbnails=32) as address, Client(address) as client:
        info = client.info()
        assert (info.encoder.kind, info.encoder.shape) == ("audio", [1, 8, 50])
        assert (info.limits.max_audio_bytes, info.limits.max_audio_seconds) == (16 << 20, 600)
        embedded = client.embeddings([build_uri(path.read_bytes()) for path in files])
        answers = client.match([{"input": build_uri(path.read_bytes())} for path in files]).results
        as_wav = client.embeddings([build_uri(encode_wav(samples, rate))])[0]
        client.upsert([{"id": "new", "label": "s000", "input": build_uri(files[0].read_bytes())}])
        assert client.match([{"id": "new"}]).results[0].similarity == pytest.approx(1.0, abs=1e-5)
        for item in ("new", "s003/1.flac"):
            thumbnail = httpx.get(f"{address}/v1/items/{item}/thumbnail".replace("s003/", "s003%2F"))
            assert thumbnail.headers["content-type"] == "image/webp"
            assert Image.open(io.BytesIO(thumbnail.content)).size == (32, 16)
    for path, vector, answer in zip(files, embedded, answers, strict=True):
        name = path.relative_to(voices).as_posix()
        np.testing.assert_allclose(vector, gallery.get(name).vector, atol=1e-5)
        assert (answer.id, answer.similarity) == (name, pytest.approx(1.0, abs=1e-5))
        assert answer.decision == gallery.match(encoder.encode([path.read_bytes()]))[0].decision
    np.testing.assert_allclose(as_wav, embedded[0], atol=1e-5)


def test_what_one_side_refuses_the_other_refuses_in_the_same_words(wrapped: Path, tmp_path: Path) -> None:
    bad = {
        "short": encode_wav(np.ones(1_000) * 0.1),
        "silent": encode_wav(np.zeros(16_000)),
        "text": b"no recording",
        "hours": encode_wav(np.zeros(700 * 8_000), 8_000, format="FLAC"),
    }
    encoder = Encoder.open(wrapped)
    with serve(wrapped) as address, Client(address) as client:
        for name, content in bad.items():
            with pytest.raises(RefusedInput) as refused:
                encoder.encode([content])
            with pytest.raises(ServiceError, match=r"queries.0.input: th") as answered:
                client.match([{"input": build_uri(content)}])
            assert refused.value.reason in str(answered.value)
            root = write_voices(tmp_path / name, speakers=2, recordings=2, seconds=1.0)
            (root / "s000" / "bad.wav").write_bytes(content)
            outcome = run_limen("embed", wrapped, root, "--out", tmp_path / "out.npz")
            assert outcome.code == 2
            assert f"s000/bad.wav cannot be used: {refused.value.reason}" in outcome.err


def test_decisions_of_a_bundle_of_voices_need_no_torch(wrapped: Path, voices: Path) -> None:
    script = (
        "import sys; from pathlib import Path; import limen; from encoder import Encoder; "
        "vectors = Encoder.open(Path(sys.argv[1])).encode([Path(sys.argv[2]).read_bytes()]); "
        "print(limen.open_bundle(sys.argv[1]).match(vectors)[0].id); assert 'torch' not in sys.modules"
    )
    query = voices / "s003" / "1.flac"
    done = subprocess.run(
        [sys.executable, "-c", script, str(wrapped), str(query)],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "s003/1.flac", done.stderr
    assert done.returncode == 0, done.stderr


def test_a_network_that_was_trained_on_recordings_is_served(
    limen: Limen, voices: Path, tmp_path: Path
) -> None:
    (tmp_path / "speakers.yaml").write_text(
        f"name: speakers\ndata: {{kind: audio, path: {voices}, audio: {{mels: 12, piece: 50}},"
        " split: {seed: 1}}\n"
        "model: {widths: [16, 16, 32], embedding_dim: 16}\nloss: multi_similarity\n"
        "sampler: {batch_size: 16}\nschedule: {epochs: 1}\ncalibration: {targets: {fpir: 0.3}}\n"
    )
    trained = limen("train", tmp_path / "speakers.yaml", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    again = limen("embed", tmp_path / "run", voices, "--out", tmp_path / "again.npz")
    assert again.code == 0, again.err
    exported = limen("export", tmp_path / "run", "--out", tmp_path / "bundle")
    assert exported.code == 0, exported.err
    stored, gallery = read_embeddings(tmp_path / "again.npz"), Gallery.open(tmp_path / "bundle")
    with serve(tmp_path / "bundle") as address, Client(address) as client:
        vectors = client.embeddings([build_uri((voices / name).read_bytes()) for name in stored.ids])
    for name, vector, served in zip(stored.ids.tolist(), stored.vectors, vectors, strict=True):
        np.testing.assert_allclose(vector, gallery.get(name).vector, atol=1e-5)
        np.testing.assert_allclose(served, vector, atol=1e-5)


def test_recordings_are_looked_at_and_a_configuration_is_written(
    limen: Limen, voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = limen("init", "audio", voices)
    assert outcome.code == 0, outcome.err
    assert "30 items of 10 classes, 3 to 3 of each (median 3), about 1." in outcome.err
    assert "16,000 samples a second" in outcome.err
    assert "Next: limen data check audio.yaml, then limen train audio.yaml" in outcome.err
    assert f"limen init audio {voices} --encoder network.onnx" in (tmp_path / "audio.yaml").read_text()
    write_spectrogram_network(tmp_path / "voice.onnx", ("n", "t", 40), mels=40)
    outcome = limen("init", "audio", voices, "--out", "wrap.yaml")
    assert outcome.code == 0, outcome.err
    assert build_config("wrap.yaml").encoder.preprocessing == {"preset": "voice_ge2e"}
    made = limen("wrap", "wrap.yaml", "--out", "bundle", "--target-fpir", "0.3")
    assert made.code == 0, made.err
    assert verify_bundle(tmp_path / "bundle").counts.items == 30


def test_a_bundle_of_voices_embeds_recordings_alone(wrapped: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="holds no recordings"):
        embed_with_bundle(wrapped, tmp_path)


def test_a_head_on_a_wrapped_encoder_begins_whitened(
    limen: Limen, wrapped: Path, voices: Path, tmp_path: Path
) -> None:
    written = limen("init", "audio", voices, "--encoder", wrapped, "--out", tmp_path / "head.yaml")
    assert written.code == 0, written.err
    trained = limen("train", tmp_path / "head.yaml", "--set", "schedule.epochs=1", "--out", tmp_path / "run")
    assert trained.code == 0, trained.err
    embedded = read_embeddings(tmp_path / "run" / "embeddings" / "test.npz")
    frozen = embed_with_bundle(wrapped, voices)
    frozen = frozen.subset(np.flatnonzero(np.isin(frozen.ids, embedded.ids)))
    assert embedded.dimension == frozen.dimension
    # a head of random numbers would not keep who is near to whom
    own, others = (items.vectors @ items.vectors.T for items in (embedded, frozen))
    assert np.corrcoef(own.ravel(), others.ravel())[0, 1] > 0.5
