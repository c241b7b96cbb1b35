"""Character images drawn with the fonts of matplotlib."""

from __future__ import annotations

import numpy as np

from training.data.glyphs import MIN_PICTURES, draw_glyphs


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
