"""From the configuration's ``data`` section to prepared items in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from api_schemas.data_config import DataConfig
from common.array_types import RowIndices, Texts
from common.errors import InputError
from common.label_spelling import fold_labels
from common.progress import Say, Track, silent, silent_say
from encoder.inputs.preprocessing import Preprocessing
from training.data.items import Items, Splits, check_roles, read_roles
from training.data.kinds import open_kind
from training.data.kinds.data_kind import AnyDataKind, join_paths
from training.data.split import check_usable, split_items

CheckLabels = Callable[[Texts], None]


def load_data(
    data: DataConfig,
    track: Track = silent,
    say: Say = silent_say,
    check_labels: CheckLabels = lambda _: None,
    preprocessing: Preprocessing | None = None,
) -> Splits:
    """Read everything the configuration names, cut it into parts, and prepare it.

    Args:
        check_labels: called with the training labels as soon as they are known, before images are decoded.
        preprocessing: of the network that is trained further; fitted to the training items unless given.

    Raises:
        InputError: a missing, empty or broken file, one class only, no class with two items, two items of a
            part with one id, or a column that is called as an array of an embeddings file.
    """
    kind = open_kind(data, say)
    spellings: dict[str, str] = {}
    raw, rows = _read_parts(kind, data, spellings, say, preprocessing)
    check_labels(raw.labels[rows["train"]])
    if preprocessing is None:
        preprocessing = kind.fit_preprocessing(raw.subset(rows["train"]))
    parts = kind.store(
        {name: raw.subset(part) for name, part in rows.items() if len(part)}, data.paths, preprocessing, track
    )
    if _say_skipped(raw, rows, parts, kind.noun, say):
        for name, items in parts.items():
            if not len(items):
                raise _build_broken_error(kind.source, f"{kind.noun} for {name}", raw.ids[rows[name]])
        check_usable(
            {name: items.labels for name, items in parts.items()},
            f"{kind.source} without its broken {kind.noun}s",
        )
        check_labels(parts["train"].labels)
    if data.test_paths:
        parts["test"] = load_items(data.test_paths, data, preprocessing, track, say, spellings)
    _warn_of_shared_classes(parts, say)
    return Splits(parts["train"], parts.get("validation"), parts.get("test"), preprocessing)


def load_examples(
    data: DataConfig,
    count: int,
    seed: int = 0,
    say: Say = silent_say,
    preprocessing: Preprocessing | None = None,
) -> tuple[Items, Preprocessing]:
    """Some training items, prepared as all are, each of another class while there are any; the rest is not
    decoded. See ``load_data``."""
    kind = open_kind(data, say)
    raw, rows = _read_parts(kind, data, {}, say, preprocessing)
    train = raw.subset(rows["train"])
    if preprocessing is None:
        preprocessing = kind.fit_preprocessing(train)
    order = np.random.default_rng(seed).permutation(len(train))
    _, codes = np.unique(train.labels[order], return_inverse=True)
    by_class = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_class], codes[by_class])
    rank = np.empty(len(order), dtype=np.int64)
    rank[by_class] = np.arange(len(order)) - starts  # how many of the class come before
    chosen = order[np.argsort(rank, kind="stable")[:count]]
    return kind.prepare(train.subset(chosen), preprocessing, silent), preprocessing


def load_items(
    paths: Sequence[Path],
    data: DataConfig,
    preprocessing: Preprocessing,
    track: Track = silent,
    say: Say = silent_say,
    spellings: dict[str, str] | None = None,
) -> Items:
    """Everything at those paths, uncut, prepared by a model's own rule.

    Args:
        data: how the files are read: their kind, names of columns, what to do with broken images.
        spellings: of labels that were folded before (``common.label_spelling.fold_labels``); without them
            labels are taken as they are, those of ``data.unknown_labels`` too.

    Raises:
        InputError: a missing, empty or broken file, or columns that are not those of the rule.
    """
    kind = open_kind(data, say)
    source = join_paths(paths)
    raw = read_roles(kind.read(paths, preprocessing), data.role_column, source)
    if spellings is not None:
        raw = _apply_label_rules(raw, data, spellings, source, say)
    everything = {"all": np.arange(len(raw))}
    kind.check_ids(raw, everything.values(), source)
    items = kind.store({"all": raw}, paths, preprocessing, track)["all"]
    _say_skipped(raw, everything, {"all": items}, kind.noun, say)
    if not len(items):
        raise _build_broken_error(source, kind.noun, raw.ids)
    return items


def _read_parts(
    kind: AnyDataKind,
    data: DataConfig,
    spellings: dict[str, str],
    say: Say,
    preprocessing: Preprocessing | None,
) -> tuple[Items, dict[str, RowIndices]]:
    """The raw items that are used, and the rows of each part."""
    is_free = preprocessing is None or data.kind == "builtin"
    read = kind.read_all() if is_free else kind.read(data.paths, preprocessing)
    raw = _apply_label_rules(read, data, spellings, kind.source, say)
    raw = read_roles(raw, data.role_column, kind.source)
    rows = split_items(raw, data, kind.source)
    check_roles(raw, rows, kind.source)
    kind.check_ids(raw, rows.values(), kind.source)
    return raw, rows


def _apply_label_rules(
    raw: Items, data: DataConfig, spellings: dict[str, str], source: str, say: Say
) -> Items:
    """Labels folded and items of unknown labels left out, as the configuration says."""
    if data.fold_labels:
        raw = replace(raw, labels=np.array(fold_labels(raw.labels.tolist(), spellings), dtype=np.str_))
    is_unknown = np.isin(raw.labels, data.unknown_labels)
    if is_unknown.all():
        raise InputError(f"{source}: every item has one of data.unknown_labels.")
    if not is_unknown.any():
        return raw
    say(
        f"{int(is_unknown.sum())} items of {', '.join(data.unknown_labels)} (data.unknown_labels) are left "
        "out: `limen embed` them, and give them to `limen evaluate --unknown`."
    )
    return raw.subset(~is_unknown)


def _build_broken_error(source: str, what: str, ids: Texts) -> InputError:
    return InputError(
        f"{source}: every {what} is broken, e.g. {ids[0]}: open it in a viewer, or give others."
    )


def _say_skipped(
    raw: Items, rows: Mapping[str, RowIndices], parts: Mapping[str, Items], noun: str, say: Say
) -> bool:
    """Name the items that were left out when the parts were prepared; False when there are none."""
    skipped = [rows[name][~np.isin(raw.ids[rows[name]], items.ids)] for name, items in parts.items()]
    names = raw.ids[np.sort(np.concatenate(skipped))].tolist()
    if names:
        say(f"Skipped {len(names)} broken {noun}s: {', '.join(names[:5])}{', ...' if names[5:] else ''}.")
    return bool(names)


def _warn_of_shared_classes(parts: Mapping[str, Items], say: Say) -> None:
    for name in ("validation", "test"):
        items = parts.get(name)
        n_shared = 0 if items is None else len(np.intersect1d(parts["train"].labels, items.labels))
        if items is not None and n_shared:
            say(
                f"{n_shared} of {items.n_classes} {name} classes are also trained on: "
                f"{name} figures are not those of unseen classes."
            )
