"""Character images drawn with the fonts of matplotlib."""

from __future__ import annotations

import numpy as np
import pytest

from training.data import glyphs
from training.data.glyphs import FACES, MAX_DIFFERENCE, MIN_PICTURES, SIDE, Pixels, draw_glyphs


def test_glyphs_are_distinct_characters_in_many_faces() -> None:
    pixels, labels, ids = draw_glyphs()
    assert pixels.shape[1:] == (28, 28)
    assert len(pixels) == len(labels) == len(set(ids))
    classes, counts = np.unique(labels, return_counts=True)
    assert 800 <= len(classes) <= 2_300
    assert counts.min() >= MIN_PICTURES
    names = set(labels)
    assert "U+0041 A" in names
    assert not names & {"U+0391 Α", "U+0410 А"}, "they look like Latin A"
    assert len(names & {"U+0145 Ņ", "U+1E46 Ṇ"}) <= 1, "indistinguishable at this size"
    assert len({image.tobytes() for image in pixels}) == len(pixels), "no picture is there twice"


def select_distinct(drawn: dict[int, dict[str, Pixels]]) -> list[int]:
    """Characters that no kept one before is drawn like by half of the faces of both, pair by pair."""
    kept: list[int] = []
    for character, by_face in drawn.items():
        for earlier in kept:
            shared = by_face.keys() & drawn[earlier].keys()
            alike = 0
            for face in shared:
                one, other = (255 - drawn[name][face].astype(np.int64) for name in (character, earlier))
                darker = max((one**2).sum(), (other**2).sum())
                alike += bool(((one - other) ** 2).sum() < np.float32(MAX_DIFFERENCE) * np.float32(darker))
            if 2 * alike >= max(len(shared), 1):
                break
        else:
            kept.append(character)
    return kept


@pytest.mark.parametrize("seed", range(4))
def test_alike_characters_are_those_that_a_loop_over_pairs_finds(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glyphs, "ROWS", 7)
    rng = np.random.default_rng(seed)
    shapes = rng.choice(np.array([0, 128, 255], dtype=np.uint8), (6, SIDE, SIDE), p=[0.1, 0.05, 0.85])
    drawn: dict[int, dict[str, Pixels]] = {}
    for character in range(40):
        faces = rng.choice(np.array(FACES[:6]), rng.integers(1, 7), replace=False)
        drawn[character] = {str(face): shapes[rng.integers(6)].copy() for face in faces}
        for picture in drawn[character].values():
            picture[rng.random(picture.shape) < rng.choice([0.0, 0.01, 0.03])] = 0
    expected = select_distinct(drawn)
    assert 1 < len(expected) < 40
    assert glyphs._select_distinct(drawn) == expected
