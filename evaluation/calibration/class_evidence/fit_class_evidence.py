"""Fit class evidence in a gallery / probe protocol, and once more for every pair of folds of classes.

Of every class some items are the gallery, as many as galleries will have, others the probes. Fitted by
leaving one out within one set, the number of items (one less for a query's own class) and the tightness
without the query would give the own class away. Positives are probes with their own class, negatives those
with the nearest other classes. Log-odds are not linear in these features, and a search by FPIR decides far
above even odds: weights are fitted at even odds and at a strict prior, and the better ones are taken.

Covariances and weights are fitted on folds of the classes. Trials between two folds are scored by what was
fitted without both: a covariance knows the classes it was estimated on, and a score of these is too high.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, NamedTuple

import numpy as np

from api_schemas.operating_point import Score
from common.array_types import Float32s, Float64s, Int64s
from common.progress import Track, silent
from decision.class_arrays import ClassArrays, Plda
from decision.class_evidence import FORMS, EvidenceScorer
from decision.scorers import stretch_near_pole
from embeddings.embedding_set import EmbeddingSet
from embeddings.hashes import hash_cohort
from evaluation.calibration.class_evidence.class_features import (
    GalleryClasses,
    average_rows,
    compute_query_densities,
    compute_ratios,
)
from evaluation.calibration.class_evidence.evidence_trials import CrossFittedEvidence
from evaluation.calibration.class_evidence.plda import ClassScatter, fit_plda
from evaluation.calibration.class_evidence.split_probes import join_groups, split_probes
from evaluation.calibration.fit_probability import fit_log_odds
from evaluation.calibration.sets.tracks import TRACK, add_tracks, exclude_tracks, select_tracks
from evaluation.pairs.exclusions import ExcludeSame
from evaluation.pairs.pairs import arrange

POLE = 1.02  # so that the similarity of equal items stays finite, and not far from others
NEGATIVES = 8
PRIORS = (0.5, 0.01)  # with the first, loose classes may be matched ten times as often; sentences gain by it
FOLDS = 5
DRAWS = 4  # of galleries and probes
MOST_CLASSES = 400
NEIGHBOURS = 200
COHORT_PER_NEIGHBOUR = 20
RIDGES = (0.1, 0.95)  # the second hardly whitens: sentences of many classes gain by it, glyphs lose


class PldaSource(NamedTuple):
    """Where covariances are estimated: on ``fit`` classes or on ``both`` these and training's; the ridge."""

    classes: str
    ridge: float


@dataclass(frozen=True)
class EvidenceForm:
    """A form to be fitted: its name in ``FORMS``, whether similarities are stretched, its covariances, and
    the prior at which its log-odds are to be right."""

    name: str
    stretched: bool = False
    source: PldaSource | None = None
    prior: float = PRIORS[0]

    @property
    def features(self) -> tuple[str, ...]:
        return FORMS[self.name]

    def __str__(self) -> str:
        name = self.name + (", stretched" if self.stretched else "")
        name += "" if self.prior == PRIORS[0] else ", strict"
        if self.source is None:
            return name
        return f"{name}; covariances of {self.source.classes} classes, ridge {self.source.ridge:g}"


@dataclass(frozen=True, eq=False)
class ProtocolTrials:
    """Features of probes with every class of their draw's gallery.

    Attributes:
        own: int64 [q]: the column of each probe's class.
        classes: int64 [q]: the probe's class among those of the fit set.
        columns: int64 [c]: the class of each column.
        features: by name, float64 [q, c] or [1, c], but for ``plda``.
        ratios: by source, float64 [q, c], cross-fitted.
    """

    own: Int64s
    classes: Int64s
    columns: Int64s
    features: Mapping[str, Float64s]
    ratios: Mapping[PldaSource, Float64s]

    def stack(self, form: EvidenceForm) -> list[Float64s]:
        """The form's features, float64 [q, c] each."""
        shape = self.features["best"].shape
        stacked = []
        for name in form.features:
            if name == "plda":
                assert form.source is not None
                stacked.append(self.ratios[form.source])
                continue
            values = np.broadcast_to(self.features[name], shape)
            stacked.append(stretch_near_pole(values, POLE) if form.stretched else np.asarray(values))
        return stacked


class EvidenceFitter:
    """Fits forms on one set of classes, with the help of training classes and of a cohort.

    Args:
        fit: items of the classes the weights are fitted on.
        training: items of other classes that covariances are estimated on; perhaps seen by the encoder.
        cohort: items that densities are measured against; None for forms without.
        references: items a class of the gallery has; half of each class unless given.
        vectors: of each probe.
        exclude_same: what no probe shares with the gallery's items of its class.
    """

    def __init__(
        self,
        fit: EmbeddingSet,
        training: EmbeddingSet | None = None,
        cohort: EmbeddingSet | None = None,
        references: int | None = None,
        seed: int = 0,
        track: Track = silent,
        *,
        vectors: int = 1,
        exclude_same: ExcludeSame = None,
    ) -> None:
        rng = np.random.default_rng([seed, 17])
        if len(fit.classes) > MOST_CLASSES:
            fit = fit.select_classes(rng.permutation(fit.classes)[:MOST_CLASSES])
        units = None
        if vectors > 1:
            fit = add_tracks(fit, vectors, exclude_same)
        if vectors > 1 or exclude_same:
            units = join_groups(fit, exclude_tracks(exclude_same) if vectors > 1 else exclude_same)
        self.vectors = vectors
        self.fit, self.training, self.cohort = fit, training, cohort
        self.references = references
        self.folds: Int64s = rng.permutation(len(fit.classes)).astype(np.int64) % FOLDS
        self.usual_tightness = measure_usual_tightness(fit)
        self.pldas = self._fit_pldas()
        self.draws = [
            self._measure_draw(*split_probes(fit, references, rng, vectors, units))
            for _ in track(range(DRAWS), "class evidence: galleries and probes", DRAWS)
        ]

    # -- covariances ------------------------------------------------------------------------------------
    def _fit_pldas(self) -> dict[PldaSource, dict[tuple[int, int] | None, Plda]]:
        """By source, and by the pair of folds left out, None for none."""
        by_fold = [
            ClassScatter.measure(self.fit.select_classes(self.fit.classes[self.folds == fold]))
            for fold in range(FOLDS)
        ]
        training = None if self.training is None else ClassScatter.measure(self.training)

        def add(left_out: tuple[int, int] | None, classes: str) -> ClassScatter | None:
            total = training if classes == "both" else None
            for fold, scatter in enumerate(by_fold):
                if fold not in (left_out or ()):
                    total = scatter if total is None else total + scatter
            return total if total is not None and total.supports_plda else None

        pldas: dict[PldaSource, dict[tuple[int, int] | None, Plda]] = {}
        keys: list[tuple[int, int] | None] = [None, *self.fold_pairs]
        for classes in ["fit"] if training is None else ["both"]:
            for ridge in RIDGES:
                fitted: dict[tuple[int, int] | None, Plda | None] = {}
                for key in keys:
                    left_out = self._leave_out(key)
                    if left_out not in fitted:
                        scatter = add(left_out, classes)
                        fitted[left_out] = None if scatter is None else fit_plda(scatter, ridge)
                of_keys = {key: fitted[self._leave_out(key)] for key in keys}
                usable = {key: plda for key, plda in of_keys.items() if plda is not None}
                if len(usable) == len(keys) and all(len(plda.between) for plda in usable.values()):
                    pldas[PldaSource(classes, ridge)] = usable
        return pldas

    @property
    def fold_pairs(self) -> list[tuple[int, int]]:
        """Every pair of folds, lower first."""
        return list(combinations_with_replacement(range(FOLDS), 2))

    @staticmethod
    def _leave_out(key: tuple[int, int] | None) -> tuple[int, int] | None:
        """What covariances are fitted without: within one fold also another, so that all have as many."""
        if key is not None and key[0] == key[1]:
            low, high = sorted((key[0], (key[0] + 1) % FOLDS))
            return low, high
        return key

    # -- features ---------------------------------------------------------------------------------------
    def _measure_draw(self, gallery: EmbeddingSet, probes: EmbeddingSet) -> ProtocolTrials:
        plain = self._build("similarity" if self.cohort is None else "similarity-density", None, {})
        n = self.vectors
        pairs = arrange(probes, gallery=gallery, exclude_same=TRACK if n > 1 else None)
        if n > 1:
            pairs = select_tracks(pairs, n)
        classes = GalleryClasses.measure(pairs, plain)
        prepared = plain.prepare(classes.models, exact=False)
        strips = list(classes.iterate_strips(pairs, "class evidence", vectors=n))
        best = np.concatenate([strip.combine(n).best for strip in strips])
        rows = average_rows(pairs.a.vectors.astype(np.float64), n)
        features = {
            "best": best,
            "mean": rows @ prepared.means.T,
            "tightness": prepared.tightness[None, :],
        }
        if plain.has_densities:
            features["query_density"] = np.concatenate(
                [average_rows(compute_query_densities(pairs, strip, classes, plain), n) for strip in strips]
            )
            features["class_density"] = prepared.densities[None, :]
        numbers = np.searchsorted(self.fit.classes, pairs.classes)
        columns, of_queries = numbers[classes.codes], numbers[pairs.a.codes[::n]]
        ratios = {}
        for source, pldas in self.pldas.items():
            ratios[source] = np.empty(best.shape)
            for key in self.fold_pairs:
                part = self._build("plda", pldas[key], {})
                of_part = part.prepare(classes.models, exact=False)
                for query_fold, class_fold in {key, key[::-1]}:
                    q = np.flatnonzero(self.folds[of_queries] == query_fold)
                    c = np.flatnonzero(self.folds[columns] == class_fold)
                    projected = part.project(rows[q], exact=False)
                    ratios[source][np.ix_(q, c)] = compute_ratios(part, projected, of_part.select(c), n)
        own = np.searchsorted(columns, of_queries)
        return ProtocolTrials(own, of_queries, columns, features, ratios)

    @cached_property
    def _cohort_digest(self) -> str:
        assert self.cohort is not None
        return hash_cohort(self.cohort.vectors)

    def count_known_classes(self) -> int:
        """Classes of which an item is left for some query of theirs, which is no copy of all of them."""
        known = [
            draw.classes[np.isfinite(draw.features["best"][np.arange(len(draw.own)), draw.own])]
            for draw in self.draws
        ]
        return len(np.unique(np.concatenate(known)))

    # -- weights ----------------------------------------------------------------------------------------
    def fit_form(self, form: EvidenceForm) -> CrossFittedEvidence:
        """The form fitted on all classes, which holds the scores fitted without two folds each."""
        stacked = [self._select_trials(draw, form) for draw in self.draws]
        positives, negatives = (np.concatenate([part[i] for part in stacked], axis=1) for i in (0, 1))
        of_positive = np.concatenate([part[2] for part in stacked])
        of_negative = np.concatenate([part[3] for part in stacked], axis=1)

        def fit_without(left_out: tuple[int, int] | None) -> Float64s:
            out = np.isin(self.folds, left_out or ())
            kept, others = ~out[of_positive], ~out[of_negative].any(axis=0)
            design = np.concatenate([positives[:, kept], negatives[:, others]], axis=1)
            return np.array(fit_log_odds(design, int(kept.sum()), form.prior))

        final_weights = fit_without(None)
        everything = np.concatenate([positives, negatives], axis=1)

        def bring_to_scale(weights: Float64s) -> Float64s:
            """Fewer classes are separated more easily or more cautiously: another unit of the log-odds."""
            wanted, own = (w[:-1] @ everything + w[-1] for w in (final_weights, weights))
            slope, shift = np.polyfit(own, wanted, 1)
            return np.append(slope * weights[:-1], slope * weights[-1] + shift)

        of_negatives, of_all = (
            final_weights[:-1] @ part + final_weights[-1] for part in (negatives, everything)
        )
        highest = float(of_all.max())
        # as far above everything seen as that is above the usual impostor: no useful threshold lies there
        copy = highest + (highest - float(np.median(of_negatives)))

        def name_weights(weights: Float64s) -> dict[str, float]:
            return dict(zip((*form.features, "intercept"), weights.tolist(), strict=True)) | {"copy": copy}

        pldas = self.pldas[form.source] if form.source is not None else {}
        parts = {
            key: self._build(
                form.name, pldas.get(key), name_weights(bring_to_scale(fit_without(key))), form.stretched
            )
            for key in self.fold_pairs
        }
        final = self._build(form.name, pldas.get(None), name_weights(final_weights), form.stretched)
        folds = {str(label): int(fold) for label, fold in zip(self.fit.classes, self.folds, strict=True)}
        return CrossFittedEvidence(final.score, final.cohort, final.arrays, folds, parts)

    @staticmethod
    def _select_trials(draw: ProtocolTrials, form: EvidenceForm) -> tuple[Float64s, Float64s, Int64s, Int64s]:
        """Features [f, n] of positives and negatives, and classes: [n], and [2, n] of both ends.

        A class of which no item is left for a query, as where all are copies of it, is no trial.
        """
        stacked = np.stack(draw.stack(form))
        rows = np.arange(len(draw.own))
        best = draw.features["best"].copy()
        known = np.flatnonzero(np.isfinite(best[rows, draw.own]))
        best[rows, draw.own] = -np.inf
        most = min(NEGATIVES, best.shape[1] - 1)
        nearest = np.argpartition(-best, most - 1, axis=1)[:, :most]
        query, column = np.repeat(rows, most), nearest.ravel()
        left = np.isfinite(best[query, column])
        query, column = query[left], column[left]
        return (
            stacked[:, known, draw.own[known]],
            stacked[:, query, column],
            draw.classes[known],
            np.stack([draw.classes[query], draw.columns[column]]),
        )

    def score_draws(self, fitted: CrossFittedEvidence, form: EvidenceForm) -> list[Float32s]:
        """float32 [q, c] of each draw: cross-fitted scores of probes with every class."""
        scores = []
        for draw in self.draws:
            stacked = draw.stack(form)
            of_draw = np.empty(stacked[0].shape, dtype=np.float32)
            left = np.isfinite(draw.features["best"])
            of_queries, of_columns = self.folds[draw.classes], self.folds[draw.columns]
            for key in self.fold_pairs:
                weights = {
                    name: float(np.max(value)) for name, value in fitted.parts[key].score.parameters.items()
                }
                for query_fold, class_fold in {key, key[::-1]}:
                    cells = np.ix_(
                        np.flatnonzero(of_queries == query_fold), np.flatnonzero(of_columns == class_fold)
                    )
                    total = np.full(of_draw[cells].shape, weights["intercept"])
                    for name, values in zip(form.features, stacked, strict=True):
                        total += weights[name] * np.where(left[cells], values[cells], 0.0)
                    of_draw[cells] = np.where(left[cells], total, -np.inf)
            scores.append(of_draw)
        return scores

    def _build(
        self, name: str, plda: Plda | None, weights: Mapping[str, float], stretched: bool = False
    ) -> EvidenceScorer:
        features = FORMS[name]
        parameters: dict[str, Any] = dict.fromkeys(features, 0.0)
        parameters |= {"intercept": 0.0, "usual_tightness": self.usual_tightness, **weights}
        if stretched and features != ("plda",):
            parameters["pole"] = POLE
        labels, digest, vectors = None, None, None
        if "query_density" in features:
            assert self.cohort is not None
            parameters["neighbours"] = [max(1, min(NEIGHBOURS, len(self.cohort) // COHORT_PER_NEIGHBOUR))]
            labels, vectors = self.cohort.labels, self.cohort.vectors
            digest = self._cohort_digest
        arrays = ClassArrays(plda if "plda" in features else None, labels)
        has_arrays = arrays.plda is not None or labels is not None
        score = Score(
            kind="evidence",
            form=name,
            parameters=parameters,
            cohort_sha256=digest,
            class_model_sha256=arrays.compute_hash() if has_arrays else None,
        )
        return EvidenceScorer(score, vectors, arrays)


def measure_usual_tightness(items: EmbeddingSet) -> float:
    """The mean over classes of the mean similarity of two of their items."""
    counts = np.bincount(items.codes).astype(np.float64)
    sums = np.zeros((len(counts), items.dimension))
    np.add.at(sums, items.codes, items.vectors.astype(np.float64))
    several = counts > 1
    own = ((sums * sums).sum(axis=1) - counts)[several] / (counts * (counts - 1))[several]
    return float(own.mean()) if several.any() else 0.5
