"""``builtin: glyphs``: real images that come with matplotlib, its fonts, drawn at 28 x 28.

A class is a character, its items are the typefaces. Characters drawn alike in at least half of the
typefaces that have both (Latin A, Greek Alpha, Cyrillic A) are one class; where a single typeface draws
two characters alike (an italic Cyrillic i and a u), that picture is left out: with two labels for the
very same picture no answer could be right.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 28
POINTS = 18
BASELINE = 20
FEWEST_FACES = 12  # of 16: gives about 1,560 characters, with Greek, Cyrillic and mathematics among them
FACES = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
)
"""Typefaces with a Unicode character map; the Computer Modern ones (cm*) have none."""

Pixels = NDArray[np.uint8]


def glyphs() -> tuple[Pixels, list[str], list[str]]:
    """Draw every character that enough typefaces have.

    Returns:
        uint8 [n, 28, 28], black on white; the label of each (``U+0041 A``; the lowest code point of a
        merged class); its id (``U+0041-DejaVuSans``). Equal on every machine with the same fonts.
    """
    drawn = dict(_drawings())
    labels = _merged_classes(drawn)
    distinct: dict[int, dict[bytes, str]] = defaultdict(dict)
    classes_of: dict[bytes, set[int]] = defaultdict(set)
    for character, images in drawn.items():
        for face, image in images.items():
            # an exact copy within a class would be too easy to find
            distinct[labels[character]].setdefault(image.tobytes(), f"U+{character:04X}-{face}")
            classes_of[image.tobytes()].add(labels[character])
    kept: dict[int, dict[bytes, str]] = {}
    for lowest, pictures in sorted(distinct.items()):
        clear = {image: name for image, name in pictures.items() if len(classes_of[image]) == 1}
        if len(clear) >= FEWEST_FACES:
            kept[lowest] = clear
    pixels = [np.frombuffer(image, np.uint8) for images in kept.values() for image in images]
    classes = [f"U+{lowest:04X} {chr(lowest)}" for lowest, images in kept.items() for _ in images]
    ids = [name for images in kept.values() for name in images.values()]
    return np.stack(pixels).reshape(-1, SIDE, SIDE), classes, ids


def _drawings() -> Iterator[tuple[int, dict[str, Pixels]]]:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = {face: ImageFont.truetype(folder / f"{face}.ttf", POINTS) for face in FACES}
    maps = {face: set(FT2Font(str(folder / f"{face}.ttf")).get_charmap()) for face in FACES}
    for character in sorted(set().union(*maps.values())):
        having = [face for face in FACES if character in maps[face]]
        # separators, controls and combining marks (Z, C, M) are blank or nearly so
        if len(having) < FEWEST_FACES or unicodedata.category(chr(character))[0] in "ZCM":
            continue
        images = {face: _draw(chr(character), fonts[face]) for face in having}
        if all(image.min() < 255 for image in images.values()):
            yield character, images


def _draw(character: str, font: ImageFont.FreeTypeFont) -> Pixels:
    image = Image.new("L", (SIDE, SIDE), 255)
    ImageDraw.Draw(image).text((SIDE / 2, BASELINE), character, fill=0, font=font, anchor="ms")
    return np.asarray(image)


def _merged_classes(drawn: dict[int, dict[str, Pixels]]) -> dict[int, int]:
    """Each character's class, named by its lowest member: the union of all pairs that look alike."""
    parent = {character: character for character in drawn}

    def root(character: int) -> int:
        while parent[character] != character:
            character = parent[character]
        return character

    same_picture: dict[tuple[str, bytes], list[int]] = defaultdict(list)
    for character, images in drawn.items():
        for face, image in images.items():
            same_picture[face, image.tobytes()].append(character)
    alike = Counter(pair for group in same_picture.values() for pair in combinations(group, 2))
    for (a, b), faces in alike.items():
        if 2 * faces >= len(drawn[a].keys() & drawn[b].keys()):
            low, high = sorted((root(a), root(b)))
            parent[high] = low
    return {character: root(character) for character in drawn}
