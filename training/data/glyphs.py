"""Character images for ``builtin: glyphs``: the fonts that come with matplotlib, drawn at 28 x 28.

A class is a character, its items are the typefaces. A character that at least half of the typefaces draw
nearly like an earlier one (Greek Alpha like Latin A, a cedilla like a dot below) is no class of its own;
where a single typeface draws two characters alike (an italic Cyrillic i and a u), that picture is left
out: with two labels for the very same picture no answer could be right.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 28
POINTS = 18
BASELINE = 20
MIN_FACES = 12  # of 16: leaves Greek, Cyrillic, Georgian and mathematics in
MIN_PICTURES = 8  # a slanted face often draws a symbol upright again, and copies are left out
MAX_DIFFERENCE = 0.2  # of the ink of two pictures that are still taken for one character
ROWS = 128  # characters that are compared at a time
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
"""Typefaces with a Unicode character map; the Computer Modern ones (cm*) have none."""

Pixels = NDArray[np.uint8]


def draw_glyphs() -> tuple[Pixels, list[str], list[str]]:
    """Draw every character that enough typefaces have; a process draws them once.

    Returns:
        uint8 [n, 28, 28], black on white, read-only; the label of each (``U+0041 A``); its id
        (``U+0041-DejaVuSans``). Equal on every machine with the same fonts.
    """
    pixels, classes, ids = _draw_once()
    return pixels, list(classes), list(ids)


@cache
def _draw_once() -> tuple[Pixels, tuple[str, ...], tuple[str, ...]]:
    drawn = dict(_draw_characters())
    distinct: dict[int, dict[bytes, str]] = defaultdict(dict)
    drawn_by: Counter[bytes] = Counter()
    for character in _select_distinct(drawn):
        for face, image in drawn[character].items():
            # an exact copy within a class would be too easy to find
            distinct[character].setdefault(image.tobytes(), f"U+{character:04X}-{face}")
        drawn_by.update(distinct[character].keys())
    kept: dict[int, dict[bytes, str]] = {}
    for character, pictures in distinct.items():
        clear = {image: name for image, name in pictures.items() if drawn_by[image] == 1}
        if len(clear) >= MIN_PICTURES:
            kept[character] = clear
    pixels = [np.frombuffer(image, np.uint8) for images in kept.values() for image in images]
    classes = (f"U+{character:04X} {chr(character)}" for character, images in kept.items() for _ in images)
    ids = (name for images in kept.values() for name in images.values())
    drawn_pixels = np.stack(pixels).reshape(-1, SIDE, SIDE)
    drawn_pixels.setflags(write=False)
    return drawn_pixels, tuple(classes), tuple(ids)


def _draw_characters() -> Iterator[tuple[int, dict[str, Pixels]]]:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    maps = {face: set(FT2Font(str(folder / f"{face}.ttf")).get_charmap()) for face in FACES}
    faces = Counter(character for held in maps.values() for character in held)
    # separators, controls and combining marks (Z, C, M) are blank or nearly so
    characters = [
        character
        for character in sorted(faces)
        if faces[character] >= MIN_FACES and unicodedata.category(chr(character))[0] not in "ZCM"
    ]
    drawn: dict[int, dict[str, Pixels]] = {character: {} for character in characters}
    for face in FACES:
        having = [character for character in characters if character in maps[face]]
        images = _draw_sheet(having, ImageFont.truetype(folder / f"{face}.ttf", POINTS))
        for character, image in zip(having, images, strict=True):
            drawn[character][face] = image
    for character, by_face in drawn.items():
        if all(image.min() < 255 for image in by_face.values()):
            yield character, by_face


def _draw_sheet(characters: list[int], font: ImageFont.FreeTypeFont) -> Pixels:
    """uint8 [n, 28, 28]: the characters in one typeface, drawn in a row with room for wide ones between."""
    pitch = 3 * SIDE
    sheet = Image.new("L", (pitch * len(characters), SIDE), 255)
    draw = ImageDraw.Draw(sheet)
    for number, character in enumerate(characters):
        middle = (pitch * number + pitch // 2, BASELINE)
        draw.text(middle, chr(character), fill=0, font=font, anchor="ms")
    cells = np.asarray(sheet).reshape(SIDE, len(characters), pitch)[:, :, SIDE : 2 * SIDE]
    return np.ascontiguousarray(cells.transpose(1, 0, 2))


def _select_distinct(drawn: dict[int, dict[str, Pixels]]) -> list[int]:
    """Characters, lowest first, each drawn unlike all before it.

    Two pictures are alike when the squared difference of their ink is below ``MAX_DIFFERENCE`` of the ink of
    the darker one; two characters, when at least half of the typefaces that have both draw them alike.
    """
    characters = list(drawn)
    has = np.array(
        [[face in drawn[character] for face in FACES] for character in characters], dtype=np.float32
    )
    alike = np.zeros((len(characters), len(characters)), dtype=np.uint8)
    blank = np.full((SIDE, SIDE), 255, dtype=np.uint8)  # without ink, and so like nothing
    for face in FACES:
        ink = 255 - np.stack([drawn[character].get(face, blank).ravel() for character in characters])
        ink = ink[:, ink.any(axis=0)].astype(np.float32)
        amount = np.square(ink).sum(axis=1)
        for first in range(0, len(characters), ROWS):  # with those before them alone
            rows, before = slice(first, first + ROWS), slice(0, first + ROWS)
            darker = np.maximum(amount[rows, None], amount[None, before])
            difference = amount[rows, None] + amount[None, before] - 2 * (ink[rows] @ ink[before].T)
            alike[rows, before] += difference < MAX_DIFFERENCE * darker
    one_character = 2 * alike >= np.maximum(has @ has.T, 1)
    kept: list[int] = []
    for row in range(len(characters)):
        if not one_character[row, kept].any():
            kept.append(row)
    return [characters[row] for row in kept]
