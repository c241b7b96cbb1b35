"""``data.kind: audio``: recordings in folders, zips and lists, and the rule that is fitted to them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from api_schemas.data_config import DataConfig
from common.errors import ConfigError, InputError
from common.progress import silent
from tests.voices import write_voices
from training.data.kinds import open_kind
from training.data.kinds.audio import Audio
from training.data.load_data import load_data


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_voices(tmp_path_factory.mktemp("data") / "voices", speakers=6, recordings=3, seconds=1.5)


def open_audio(path: Path, **keys: object) -> Audio:
    kind = open_kind(DataConfig.model_validate({"kind": "audio", "path": str(path), **keys}))
    assert isinstance(kind, Audio)
    return kind


def test_folders_zips_and_lists_hold_the_same_recordings(voices: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "voices.zip", "w") as archive:
        for path in sorted(voices.rglob("*.flac")):
            archive.write(path, path.relative_to(voices))
    rows = [f"{path},{path.parent.name}" for path in sorted(voices.rglob("*.flac"))]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    sources = [voices, tmp_path / "voices.zip", tmp_path / "list.csv"]
    kinds = [open_audio(path) for path in sources]
    read = [kind.read_all() for kind in kinds]
    rule = kinds[0].fit_preprocessing(read[0])
    prepared = [kind.prepare(items, rule, silent) for kind, items in zip(kinds, read, strict=True)]
    assert prepared[0].ids[:2].tolist() == ["s000/0.flac", "s000/1.flac"]
    for items in prepared:
        np.testing.assert_array_equal(items.labels, prepared[0].labels)
        np.testing.assert_array_equal(items.inputs, prepared[0].inputs)


def test_what_is_trained_on_is_what_the_service_prepares_of_the_same_bytes(voices: Path) -> None:
    kind = open_audio(voices)
    raw = kind.read_all()
    rule = kind.fit_preprocessing(raw)
    stored = kind.prepare(raw, rule, silent)
    served = rule.prepare([(voices / name).read_bytes() for name in raw.ids.tolist()])
    np.testing.assert_array_equal(rule.normalise(stored.inputs), served)


def test_the_rule_is_fitted_and_what_is_said_stays(voices: Path, tmp_path: Path) -> None:
    kind = open_audio(voices)
    items = kind.read_all()
    rule = kind.fit_preprocessing(items)
    prepared = kind.prepare(items, rule, silent).inputs
    present = prepared[~np.isnan(prepared)]
    assert rule.rule.sample_rate == 16_000
    assert abs(present.mean()) < 0.02
    assert abs(present.std() - 1) < 0.02
    said = {"sample_rate": 8_000, "mean": 0.5, "std": 2.0, "mels": 20, "piece": 50, "loudness": -25.0}
    own = open_audio(voices, audio=said).fit_preprocessing(items).rule
    assert said.items() <= own.model_dump().items()
    assert (own.n_fft, own.hop, own.fmax, own.step, own.shortest) == (200, 80, 4_000.0, 25, 0.25)
    slow = tmp_path / "slow" / "a"
    slow.mkdir(parents=True)
    soundfile.write(slow / "1.wav", np.random.default_rng(0).normal(0, 0.1, 12_000), 8_000)
    kind = open_audio(tmp_path / "slow")
    assert kind.fit_preprocessing(kind.read_all()).rule.sample_rate == 8_000


def test_recordings_that_cannot_be_used_are_named_or_left_out(voices: Path, tmp_path: Path) -> None:
    folder = write_voices(tmp_path / "voices", speakers=10, recordings=2, seconds=1.0)
    (folder / "s000" / "broken.wav").write_bytes(b"RIFF....WAVE")
    soundfile.write(folder / "s001" / "short.wav", np.ones(1_000) * 0.1, 16_000)
    data = DataConfig.model_validate({"kind": "audio", "path": str(folder)})
    with pytest.raises(InputError, match=r"(s000/broken|s001/short).wav cannot be used: .*data.broken=skip"):
        load_data(data)
    said: list[str] = []
    splits = load_data(data.model_copy(update={"broken": "skip"}), say=said.append)
    assert sum(len(items) for items in splits.get_parts().values()) == 20
    assert said == ["Skipped 2 broken recordings: s000/broken.wav, s001/short.wav."]


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "song.mp3").write_bytes(b"ID3")
    with pytest.raises(
        InputError, match=r"holds no recordings: .* such as .wav or .flac. 1 file was not read"
    ):
        open_audio(tmp_path).read_all()


def test_values_that_do_not_go_together_are_a_sentence(voices: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.audio: .*step must be at most piece"):
        open_audio(voices, audio={"step": 500}).build_placeholder()
