"""The items that a threshold is fitted, proven and measured on, checked and brought to a workable size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from api_schemas.operating_point import GallerySize, Probability
from common.array_types import Texts
from common.errors import CalibrationRefused, InputError
from embeddings.embedding_set import EmbeddingSet, join_columns
from evaluation.pairs.exclusions import ExcludeSame, describe_exclusions

LEAST_CLASSES = 20  # that a bound over classes needs
LEAST_ESTIMATED = 5  # that a best estimate needs, of a set or of a cohort
POOLED_BELOW = 40  # classes to fit on: with fewer, a score that is not fitted takes those of the proof, too
MOST_CLASSES = 2000  # what is calibrated on: drawn at random beyond
MOST_ITEMS = 20_000
MOST_OF_CLASS = 1000
MOST_TRIALS = 7_500_000  # items times classes: 4 bytes each, and as many again for the folds
STREAM = 30


@dataclass(frozen=True, eq=False)
class CalibrationSources:
    """What to calibrate on.

    Attributes:
        fit: items of the classes a threshold is chosen on, e.g. the validation classes; with a cohort or
            unknown queries, the gallery.
        proof: items of other classes that it is measured on; without them, folds of the classes of ``fit``
            are left out in turn (chosen on the others, measured on the fold).
        training: items that scores are fitted with (densities, class evidence), of classes that are in
            neither. Without them and without ``proof``, density splits the classes of ``fit`` in three.
        cohort: items of people or things that are in no gallery, as impostors; ``fit`` may then be of one
            class.
        unknown: real queries whose class is in no gallery; once prepared, the half that is fitted on.
        unknown_proof: the other half, that is proven on.
        gallery: the size that a 1:N threshold is for; that of ``fit`` unless given.
        exclude_same: what excluded pairs share, see ``evaluation.pairs.exclusions``.
        vectors: how many vectors of one object a query of a search has.
        learned: what the model's loss learned of the probability of a match, from a cosine.
        notes: in words, for the record, what was done to the data and what is assumed.
    """

    fit: EmbeddingSet
    proof: EmbeddingSet | None = None
    training: EmbeddingSet | None = None
    cohort: EmbeddingSet | None = None
    unknown: EmbeddingSet | None = None
    unknown_proof: EmbeddingSet | None = None
    gallery: GallerySize | None = None
    exclude_same: ExcludeSame = None
    vectors: int = 1
    learned: Probability | None = None
    notes: tuple[str, ...] = ()

    @property
    def pool(self) -> EmbeddingSet:
        """The items whose classes are left out in turn: of ``fit``, and of a cohort with it."""
        return self.fit if self.cohort is None else join_sets(self.fit, self.cohort)

    def note(self, sentence: str) -> CalibrationSources:
        """The same with a sentence more."""
        return replace(self, notes=(*self.notes, sentence))


def prepare_sources(sources: CalibrationSources, seed: int = 0) -> CalibrationSources:
    """Check the sets against each other, sample what is too large, and pool what is too small.

    Raises:
        CalibrationRefused: too few classes; the sentence says what would do.
        InputError: sets of another dimension, or with classes in common.
    """
    _check_sets(sources)
    if (left_out := describe_exclusions(sources.exclude_same)) is not None:
        sources = sources.note(left_out.rstrip("."))
    if sources.gallery is None:
        fit = sources.fit
        sources = replace(sources, gallery=GallerySize(items=len(fit), classes=len(fit.classes)))
    for name in ("fit", "proof", "training", "cohort", "unknown"):
        items = getattr(sources, name)
        most = MOST_ITEMS if name == "unknown" else MOST_OF_CLASS
        sample = None if items is None else sample_items(items, seed, most)
        if sample is not None and sample is not items:
            changed: dict[str, Any] = {name: sample}
            sources = replace(sources, **changed).note(
                f"{name}: {len(sample):,} of {len(items):,} items, of {len(sample.classes):,} of "
                f"{len(items.classes):,} classes drawn at random; intervals and bounds include what that adds"
            )
    if sources.unknown is not None:
        first, second = _halve(sources.unknown, seed)
        sources = replace(sources, unknown=first, unknown_proof=second).note(
            f"fitted on {len(first)} real unknown queries, proven on {len(second)} others"
            + ("" if len(sources.unknown.classes) > 1 else ", each taken for one of its own kind")
        )
        if sources.cohort is None and len(sources.fit.classes) < LEAST_ESTIMATED:
            sources = replace(sources, cohort=first)
    if sources.proof is not None and len(sources.fit.classes) < LEAST_CLASSES:
        sources = pool_sets(sources)
    if sources.cohort is not None:
        sources = replace(sources, cohort=_name_people(sources.cohort)).note(
            f"assumes that people who are not in the gallery are like the {len(sources.cohort.classes)} of "
            "the cohort, and recorded as they were"
        )
    _check_size(sources)
    return sources


def pool_sets(sources: CalibrationSources) -> CalibrationSources:
    """The classes of fit and proof together, to be left out fold by fold."""
    if sources.proof is None:
        return sources
    return replace(sources, fit=join_sets(sources.fit, sources.proof), proof=None)


def _check_sets(sources: CalibrationSources) -> None:
    fit = sources.fit
    named = {"proof": sources.proof, "cohort": sources.cohort, "unknown queries": sources.unknown}
    for name, items in named.items():
        if items is None:
            continue
        if items.dimension != fit.dimension:
            raise InputError(
                f"The vectors of the {name} have {items.dimension} numbers, those to fit on {fit.dimension}."
            )
        shared = np.intersect1d(fit.classes, items.classes)
        if len(shared) and name == "proof":
            raise InputError(
                f"{_name_shared(shared)} both in the fit and in the proof; a threshold is proven on classes "
                "it was not chosen on."
            )
        if len(shared):
            raise InputError(
                f"{_name_shared(shared)} both in the gallery and in the {name}, who must be strangers to it; "
                f"remove {'them' if len(shared) > 1 else 'it'} from one of the two."
            )
        if sources.vectors > 1 and name != "proof" and len(items.classes) == 1:
            raise InputError(
                f"The {name} have one label, which does not say which of them are of one object: queries of "
                f"{sources.vectors} vectors need labels that do; give these, or leave the {name} out."
            )


def _name_shared(labels: Texts) -> str:
    if len(labels) == 1:
        return f"The class '{labels[0]}' is"
    return f"{len(labels)} classes, e.g. '{labels[0]}', are"


def _check_size(sources: CalibrationSources) -> None:
    n = len(sources.fit.classes)
    if sources.cohort is not None:
        if len(sources.cohort.classes) < LEAST_ESTIMATED:
            raise CalibrationRefused(
                f"A cohort of {len(sources.cohort.classes)} is too small: at least {LEAST_ESTIMATED} classes "
                "that are not in the gallery are needed, better 100."
            )
        return
    if n < LEAST_ESTIMATED:
        raise CalibrationRefused(
            f"{n} class{'es are' if n != 1 else ' is'} too few to calibrate on: an estimate needs at least "
            f"{LEAST_ESTIMATED}, a bound at least {LEAST_CLASSES}; give more classes, or a cohort of other "
            "people's vectors."
        )


def _name_people(cohort: EmbeddingSet) -> EmbeddingSet:
    """A cohort under one label has nobody told apart: every vector is taken for a person."""
    if len(cohort.classes) > 1 or len(cohort) == 1:
        return cohort
    return EmbeddingSet(cohort.vectors, cohort.ids, cohort.ids, cohort.metadata)


def _halve(unknown: EmbeddingSet, seed: int) -> tuple[EmbeddingSet, EmbeddingSet]:
    """Random halves of the classes, or of the queries where these are of few classes."""
    if len(unknown) < 2 * LEAST_ESTIMATED:
        raise CalibrationRefused(
            f"{len(unknown)} unknown queries are too few to fit on one half and prove on the other: give at "
            f"least {2 * LEAST_ESTIMATED}, better some hundreds."
        )
    rng = np.random.default_rng([seed, STREAM, 1])
    by_class = len(unknown.classes) >= 2 * LEAST_ESTIMATED
    units = unknown.codes if by_class else np.arange(len(unknown))
    n = int(units.max()) + 1
    is_first = np.isin(units, rng.permutation(n)[: n // 2])
    return unknown.subset(np.flatnonzero(is_first)), unknown.subset(np.flatnonzero(~is_first))


def sample_items(items: EmbeddingSet, seed: int, most_of_class: int = MOST_OF_CLASS) -> EmbeddingSet:
    """The set itself, or random items of random classes where it is larger than figures need."""
    rng = np.random.default_rng([seed, STREAM])
    sizes = np.bincount(items.codes)
    order = rng.permutation(len(sizes))
    kept = np.cumsum(np.minimum(sizes[order], most_of_class))
    fits = (kept <= MOST_ITEMS) & (kept * np.arange(1, len(order) + 1) <= MOST_TRIALS)
    order = order[: max(1, min(MOST_CLASSES, int(fits.sum())))]
    if len(order) == len(sizes) and sizes.max() <= most_of_class:
        return items
    shuffled = rng.permutation(len(items))
    by_class = shuffled[np.argsort(items.codes[shuffled], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    rows = [by_class[starts[code] : starts[code] + min(sizes[code], most_of_class)] for code in order]
    return items.subset(np.sort(np.concatenate(rows)))


def join_sets(first: EmbeddingSet, second: EmbeddingSet) -> EmbeddingSet:
    """The items of two sets, with the metadata that both have."""
    shared = first.metadata.keys() & second.metadata.keys()
    return EmbeddingSet(
        np.concatenate([first.vectors, second.vectors]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.ids, second.ids]),
        {
            name: join_columns([first.metadata[name], second.metadata[name]], [len(first), len(second)])
            for name in first.metadata
            if name in shared
        },
    )
