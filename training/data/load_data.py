"""One function from the configuration's ``data`` section to items in parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from api_schemas.config import DataConfig, TextConfig
from api_schemas.preprocessing import ImageInput, TableInput, TokenInput, VectorInput
from common.array_types import RowIndices, Texts
from common.errors import InputError
from common.progress import Track, silent
from encoder.preprocessing import Preprocessing
from training.data.digits import digits
from training.data.glyphs import glyphs
from training.data.id_checks import refuse_unwritable
from training.data.images import find_images, index_of, read_images, rule_for, with_statistics
from training.data.items import Items, Splits
from training.data.mapped_vectors import Mapped
from training.data.split import refuse_unusable, split_items
from training.data.table_items import read_rows, read_texts
from training.data.tables import standardisation
from training.data.vectors import read_vectors
from training.models.backbones.hub import tokenizer_of

Say = Callable[[str], None]
Look = Callable[[Texts], None]


def load_data(
    data: DataConfig, track: Track = silent, say: Say = lambda _: None, look: Look = lambda _: None
) -> Splits:
    """Read everything the configuration names and cut it into parts.

    Args:
        look: called with the training labels as soon as they are known, before images are decoded.

    Raises:
        InputError: a missing, empty or broken file, one class only, no class with two items, two items of a
            part with one id, or a column that is called as an array of an embeddings file.
    """
    if data.kind == "images":
        splits = _images(data, track, say, look)
    elif data.kind == "builtin":
        splits = _builtin(data, look)
    else:
        splits = _rows(data, track, look)
    _warn_of_shared_classes(splits, say)
    return splits


def load_items(
    paths: Sequence[Path],
    data: DataConfig,
    preprocessing: Preprocessing,
    track: Track = silent,
    say: Say = lambda _: None,
) -> Items:
    """Everything at those paths, uncut, prepared by a rule that is already there.

    Args:
        data: how the files are read: names of columns, what to do with broken images.
        preprocessing: of the model; says what the files hold.

    Raises:
        InputError: a missing, empty or broken file, or columns that are not those of the rule.
    """
    rule = preprocessing.input
    if rule.kind == "image":
        files = find_images(paths, data.path_column, data.label_column)
        index = index_of(files)
        refuse_unwritable(index, [np.arange(len(index))], _name(paths), data.kind)
        skip = data.broken == "skip"
        pixels, good = read_images(files, preprocessing, skip_broken=skip, track=track, say=say)
        return replace(index.subset(np.flatnonzero(good)), inputs=pixels)
    if rule.kind == "table":
        items = read_rows(paths, data, rule.columns)[0]
    else:
        items = read_vectors(paths, data, rule.dim) if rule.kind == "vector" else read_texts(paths, data)
    refuse_unwritable(items, [np.arange(len(items))], _name(paths), data.kind)
    return _prepared(items, preprocessing, track)


def _images(data: DataConfig, track: Track, say: Say, look: Look) -> Splits:
    files = find_images(data.paths, data.path_column, data.label_column)
    index = index_of(files)
    parts = split_items(index, data, _name(data.paths))
    refuse_unwritable(index, parts.values(), _name(data.paths), data.kind)
    look(index.labels[parts["train"]])
    rule = rule_for([files[row] for row in parts["train"]], data.image_size, data.colour)
    preprocessing = Preprocessing(rule)
    skip = data.broken == "skip"
    pixels, good = read_images(files, preprocessing, skip_broken=skip, track=track, say=say)
    items = replace(index.subset(np.flatnonzero(good)), inputs=pixels)
    new_row = np.cumsum(good) - 1
    if not good.all():
        lost = [name for name, rows in parts.items() if len(rows) and not good[rows].any()]
        if lost:
            raise InputError(f"{_name(data.paths)}: every image for {lost[0]} is broken.")
        parts = {name: new_row[rows[good[rows]]] for name, rows in parts.items()}
        refuse_unusable(items, parts, f"{_name(data.paths)} without its broken images")
        look(items.labels[parts["train"]])
    test = load_items(data.test_paths, data, preprocessing, track, say) if data.test_paths else None
    return _cut(items, parts, preprocessing, test)


def _rows(data: DataConfig, track: Track, look: Look) -> Splits:
    """Tables, texts and vectors: everything that is one row of numbers once it is prepared."""
    columns: list[str] = []
    if data.kind == "table":
        items, columns = read_rows(data.paths, data)
    else:
        items = (read_texts if data.kind == "text" else read_vectors)(data.paths, data)
    parts = split_items(items, data, _name(data.paths))
    refuse_unwritable(items, parts.values(), _name(data.paths), data.kind)
    look(items.labels[parts["train"]])
    if data.kind == "text":
        preprocessing = _text_rule(data.text, items.inputs[parts["train"]].tolist())
    elif data.kind == "table":
        means, stds = standardisation(items.inputs[parts["train"]])
        preprocessing = Preprocessing(TableInput(columns=columns, means=means, stds=stds))
    else:
        preprocessing = Preprocessing(VectorInput(dim=items.inputs.shape[1]))
    test = load_items(data.test_paths, data, preprocessing, track) if data.test_paths else None
    splits = _cut(items, parts, preprocessing)
    cut = {name: _prepared(part, preprocessing, track) for name, part in splits.parts().items()}
    return Splits(cut["train"], cut.get("validation"), test or cut.get("test"), preprocessing)


def _text_rule(text: TextConfig, texts: list[str]) -> Preprocessing:
    """N-grams, or tokens as many as the longest training text has, ``text.length`` at most."""
    if text.tokenizer is None:
        return Preprocessing(text.as_input())
    tokenizer = tokenizer_of(text.tokenizer)
    length = min(text.length, max(tokenizer.count(one) for one in texts))
    return Preprocessing(TokenInput(length=length, tokenizer_sha256=tokenizer.sha256), tokenizer)


def _prepared(items: Items, preprocessing: Preprocessing, track: Track) -> Items:
    if preprocessing.kind == "text":
        texts = track(items.inputs.tolist(), "reading texts", len(items))
        return replace(items, inputs=np.stack([preprocessing.text_array(text) for text in texts]))
    if isinstance(items.inputs, Mapped):
        return items
    return replace(items, inputs=preprocessing.rows_array(items.inputs))


def _builtin(data: DataConfig, look: Look) -> Splits:
    pixels, labels, ids = glyphs() if data.builtin == "glyphs" else digits()
    items = Items(pixels[:, None], np.array(labels), np.array(ids))
    parts = split_items(items, data, f"builtin: {data.builtin}")
    look(items.labels[parts["train"]])
    side = pixels.shape[-1]
    plain = ImageInput(mode="L", height=side, width=side, mean=[0.0], std=[1.0])
    rule = with_statistics(plain, items.inputs[parts["train"]])
    return _cut(items, parts, Preprocessing(rule))


def _cut(
    items: Items, parts: dict[str, RowIndices], rule: Preprocessing, test: Items | None = None
) -> Splits:
    def part(name: str) -> Items | None:
        return items.subset(parts[name]) if len(parts[name]) else None

    return Splits(items.subset(parts["train"]), part("validation"), test or part("test"), rule)


def _warn_of_shared_classes(splits: Splits, say: Say) -> None:
    seen = np.unique(splits.train.labels)
    for name, items in splits.parts().items():
        shared = 0 if name == "train" else len(np.intersect1d(seen, items.labels))
        if shared:
            say(
                f"{shared} of {items.n_classes} {name} classes are also trained on: "
                f"{name} figures are not those of unseen classes."
            )


def _name(paths: Sequence[Path]) -> str:
    return ", ".join(str(path) for path in paths)
