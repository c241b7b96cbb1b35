"""Checks of a data set before anything is trained on it: sizes, duplicates, leakage, imbalance."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from api_schemas.data_config import DataConfig
from common.label_spelling import describe_spellings, describe_unknown_labels
from common.progress import Say, Track, silent
from embeddings.embedding_set import EmbeddingSet, concatenate
from encoder.inputs.preprocessing import Preprocessing
from evaluation.calibration.planning.split_plan import plan_split
from evaluation.metrics.data_faults import BURSTS, find_contradictions
from evaluation.pairs.copies import measure_burst_share
from training.data.items import Splits
from training.data.kinds import open_kind
from training.data.kinds.data_kind import AnyDataKind
from training.data.load_data import load_data

IMBALANCED = 10.0  # times the median class
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One thing to know; ``warns`` when it is likely to spoil training or its figures."""

    sentence: str
    warns: bool = False


@dataclass(frozen=True)
class _Occurrence:
    """Part, label and id under which an input occurs."""

    part: str
    label: str
    item_id: str


def check_data(
    data: DataConfig,
    track: Track = silent,
    say: Say = lambda _: None,
    preprocessing: Preprocessing | None = None,
) -> list[Finding]:
    """Read a data set as training would and describe it.

    Args:
        preprocessing: of the network that is trained further; fitted to the training items unless given.

    Raises:
        InputError: what training would refuse, in the same words.
    """
    kind = open_kind(data)
    splits = load_data(data, track, say, preprocessing=preprocessing)
    rule = splits.preprocessing
    findings = [Finding(f"{splits.describe_sizes()}. Input: {rule.kind}, {rule.describe_shape()}.")]
    findings += [Finding(reason, warns=True) for reason in list_unmeasurable(splits, data)]
    findings += [Finding(sentence) for sentence in plan_points(splits)]
    findings += _describe_imbalance(splits)
    findings += _find_duplicates(splits)
    findings += _check_labels(splits)
    findings += _find_near_copies(splits, kind)
    for near in kind.find_near_duplicates(splits.get_parts()):
        what = f"of {near.first_part} and {near.second_part} look nearly the same"
        findings.append(Finding(_list_examples(near.pairs, what), warns=True))
    return findings


def plan_points(splits: Splits) -> list[str]:
    """Which operating points the split will carry, and which split would carry more; in sentences.

    Nothing where the parts share classes, so that no threshold can be proven on other classes.
    """
    classes = {name: set(items.labels) for name, items in splits.get_parts().items()}
    n_classes = len(set().union(*classes.values()))
    if sum(map(len, classes.values())) > n_classes or not {"validation", "test"} & set(classes):
        return []
    fractions = [len(classes.get(name, ())) / n_classes for name in ("train", "validation", "test")]
    n_items = sum(len(items) for items in splits.get_parts().values())
    return plan_split(n_classes, fractions, n_items / n_classes).sentences


def list_unmeasurable(splits: Splits, data: DataConfig) -> list[str]:
    """A sentence for each part that is wanted and has no items, or none that can be measured."""
    reasons = []
    for name in ("validation", "test"):
        items = splits.get_parts().get(name)
        is_wanted = getattr(data.split, name) > 0 or data.split.folds > 0
        if items is None and is_wanted and data.split.by != "column":
            reasons.append(
                f"{name} got no items, though data.split asks for some: give more classes, or set "
                f"data.split.{name} to 0."
            )
        elif items is not None and not items.is_measurable:
            reasons.append(
                f"{name} has {len(items)} items of {items.n_classes} classes, which cannot be measured: at "
                "least two classes are needed, and two items of one."
            )
    return reasons


def _describe_imbalance(splits: Splits) -> Iterable[Finding]:
    for name, items in splits.get_parts().items():
        classes, counts = np.unique(items.labels, return_counts=True)
        smallest, median, largest = counts.min(), float(np.median(counts)), counts.max()
        if smallest == largest:
            yield Finding(f"{name}: {smallest} items in every class.")
        else:
            yield Finding(
                f"{name}: {smallest} to {largest} items a class, median {median:g}, most in "
                f"'{classes[counts.argmax()]}'.",
                warns=largest > IMBALANCED * median,
            )
        n_single = int((counts == 1).sum())
        if n_single:
            yield Finding(
                f"{name}: {n_single} of {len(classes)} classes have one item, which no other can find.",
                warns=2 * n_single > len(classes),
            )


def _find_duplicates(splits: Splits) -> Iterable[Finding]:
    """Items whose prepared inputs are equal: within a class, of two classes, and across parts."""
    occurrences: dict[bytes, list[_Occurrence]] = defaultdict(list)
    for name, items in splits.get_parts().items():
        for row in range(len(items)):
            key = hashlib.blake2b(np.ascontiguousarray(items.inputs[row]).data, digest_size=16).digest()
            occurrences[key].append(_Occurrence(name, str(items.labels[row]), str(items.ids[row])))
    groups = [group for group in occurrences.values() if len(group) > 1]
    same = [group for group in groups if len({entry.label for entry in group}) == 1]
    contradicting = [group for group in groups if len({entry.label for entry in group}) > 1]
    leaking = [group for group in groups if len({entry.part for entry in group}) > 1]
    for duplicates, what, warns in (
        (same, "are exact copies within their class", False),
        (contradicting, "are the same input under two labels: no answer can be right for both", True),
        (leaking, "are in two parts at once: figures on them prove nothing", True),
    ):
        if duplicates:
            ids = [[entry.item_id for entry in group] for group in duplicates]
            yield Finding(_list_examples(ids, what), warns=warns)


def _check_labels(splits: Splits) -> Iterable[Finding]:
    """Labels that spelling alone tells apart, and labels of no identity."""
    labels = np.unique(np.concatenate([items.labels for items in splits.get_parts().values()])).tolist()
    for sentence in (
        describe_spellings(labels, "Fold them with data.fold_labels=true, or correct them."),
        describe_unknown_labels(
            labels,
            "If it is not, leave its items out with data.unknown_labels, and give them as unknown queries to "
            "`limen evaluate --unknown-label` or `--unknown`.",
        ),
    ):
        if sentence is not None:
            yield Finding(sentence, warns=True)


def _find_near_copies(splits: Splits, kind: AnyDataKind) -> Iterable[Finding]:
    """Near copies under two labels in all parts, and parts in which classes are made of bursts."""
    likenesses = []
    for name, items in splits.get_parts().items():
        rows = kind.compute_likeness(items)
        if rows is None:
            return
        has_direction = np.linalg.norm(rows, axis=1) > 0
        likeness = EmbeddingSet.from_arrays(
            rows[has_direction],
            items.labels[has_direction],
            np.char.add(f"{name} ", items.ids[has_direction]),
        )
        likenesses.append(likeness)
        fraction = measure_burst_share(likeness.vectors, likeness.codes)
        if fraction >= BURSTS:
            yield Finding(
                f"{name}: {100 * fraction:.0f} % of the items have near copies in their own class, as photos "
                "of one burst or session are, which makes figures better than other days will be: split by "
                "session (data.split.by=group), and measure with --exclude-same and a session's column, "
                "folder, near-time:file_time (data.file_times=true) or near-copy.",
                warns=True,
            )
    everything = concatenate(likenesses)
    found = find_contradictions(everything)
    near = [everything.ids[rows].tolist() for rows in (*found.same, *found.near)]
    yield from (
        [Finding(_list_examples(near, "are nearly the same under two labels: correct them"), warns=True)]
        if near
        else []
    )


def _list_examples(groups: Sequence[Sequence[str]], what: str) -> str:
    n_items = sum(len(group) for group in groups)
    examples = ", ".join(" = ".join(group[:3]) for group in groups[:MAX_EXAMPLES])
    more = f" and {len(groups) - MAX_EXAMPLES} more groups" if len(groups) > MAX_EXAMPLES else ""
    return f"{n_items} items {what}: {examples}{more}."
