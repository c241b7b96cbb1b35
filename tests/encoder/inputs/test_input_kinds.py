"""The table of input kinds: every rule of ``preprocessing.json`` has a class that keeps its word."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from api_schemas.manifest import PREPROCESSING_FILE
from api_schemas.preprocessing import AnyInput, AudioInput, InputKind, TextInput, TokenInput, VectorInput
from encoder import RefusedInput
from encoder.inputs import INPUT_KINDS, load_preprocessing
from encoder.inputs.preprocessing import RawInput
from tests.encoder.encoders import GREY, TABLE

TEXT = TextInput(buckets=100, length=12, characters=[3], words=[1])
TOKENS = TokenInput(length=7, tokenizer_sha256="0" * 64)
RULES: dict[str, AnyInput] = {
    "audio": AudioInput(n_fft=64, window=64, hop=32, mels=8, piece=10, step=5, shortest=0.01),
    "image": GREY,
    "table": TABLE,
    "text": TEXT,
    "tokens": TOKENS,
    "vector": VectorInput(dim=3),
}
RAW: dict[str, list[RawInput]] = {
    "image": [Image.new("L", (6, 4)), Image.new("RGB", (9, 9))],
    "table": [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]],
    "text": ["hello", "hello world"],
    "vector": [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]],
}


def test_every_rule_has_its_class() -> None:
    union = get_args(get_args(AnyInput)[0])
    assert INPUT_KINDS.keys() == {rule.model_fields["kind"].default for rule in union} == RULES.keys()
    assert {kind.kind for kind in INPUT_KINDS.values()} == set(get_args(InputKind))


@pytest.mark.parametrize("name", RULES)
def test_samples_are_prepared_inputs(name: str) -> None:
    preprocessing = INPUT_KINDS[name](RULES[name])
    samples = preprocessing.draw_samples(40)
    assert samples.shape == (40, *preprocessing.shape)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, preprocessing.draw_samples(40))
    assert len(np.unique(samples, axis=0)) == 40


@pytest.mark.parametrize("name", RAW)
def test_raw_inputs_are_prepared_whatever_their_number(name: str) -> None:
    preprocessing = INPUT_KINDS[name](RULES[name])
    prepared = preprocessing.prepare(RAW[name])
    assert prepared.shape == (2, *preprocessing.shape)
    assert prepared.dtype == np.float32
    alone = [preprocessing.prepare([raw])[0] for raw in RAW[name]]
    np.testing.assert_array_equal(prepared, alone)


@pytest.mark.parametrize("name", RAW)
@pytest.mark.parametrize("wrong", [3, None])
def test_an_input_of_another_kind_is_refused_with_what_the_model_takes(name: str, wrong: object) -> None:
    preprocessing = INPUT_KINDS[name](RULES[name])
    with pytest.raises(RefusedInput, match=rf"Input 6: this model takes {preprocessing.takes.format(3)}"):
        preprocessing.prepare([RAW[name][0], wrong], first=5)  # type: ignore[list-item]


@pytest.mark.parametrize("name", RAW)
def test_a_saved_rule_is_read_back_equal(name: str, tmp_path: Path) -> None:
    preprocessing = INPUT_KINDS[name](RULES[name])
    preprocessing.save(tmp_path / PREPROCESSING_FILE)
    assert load_preprocessing(tmp_path / PREPROCESSING_FILE) == preprocessing
    assert [path.name for path in tmp_path.iterdir()] == [PREPROCESSING_FILE]


def test_stored_pixels_are_normalised_and_nothing_else_is() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 1, 4, 6)
    expected = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    np.testing.assert_allclose(INPUT_KINDS["image"](GREY).normalise(pixels), expected, rtol=1e-6)
    rows = np.ones((2, 3), dtype=np.float32)
    assert INPUT_KINDS["table"](TABLE).normalise(rows) is rows
