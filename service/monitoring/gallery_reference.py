"""What a point decides on the gallery's own items, each asked against the others: the reference of queries.

It is how the point was calibrated (docs/specification.md, Operating point), repeated on the very gallery that
decides now: a query of a class that is there is an item asked without itself, an unknown query the same item
asked without its class. So the gallery's size, its growth and any point, also one chosen by hand, are
accounted for, and nothing about queries need be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from api_schemas.operating_point import OperatingPoint
from common.array_types import Float64s, Int64s, RowIndices, UnitVectors
from evaluation.drift.stability_index import MixtureReference, fit_share
from index.gallery.gallery import Gallery
from index.search.gallery_view import GalleryView
from index.search.generation import Generation
from service.models.loaded_model import LoadedModel
from service.monitoring.score_bins import BINS, get_bin_finder

SAMPLE = 1_500  # items asked for the distribution of scores
OF_LABEL = 16  # items of a class that queries matched, for the comparison of vectors
MOST_LABELS = 4_096
AT_ONCE = 256
K = 100
ACCEPTED_BINS = 5  # a few, as some hundred scores are to show a shift
RARE_PAIRS = 0.01  # of pairs of two classes have scores that are compared
RARE = 0.05  # of unknown queries have scores that are compared
SEED = 0
EMPTY = 1e-4  # fraction that a bin without a score may still have


@dataclass(frozen=True, eq=False)
class ScoreReference:
    """Scores that the calibration leads one to expect of a point, or why there are none.

    Attributes:
        mixture: of known and unknown queries, at all scores.
        accepted: of both, where unknown queries are rare: at and just below the threshold. Which scores
            unknown queries have below depends on who they are, which no calibration can know.
        known: float64 [64], fractions in the bins of the series.
        unknown: the same.
    """

    mixture: MixtureReference | None
    accepted: MixtureReference | None
    known: Float64s
    unknown: Float64s
    reason: str = ""

    def predict(self, counts: Float64s) -> Float64s:
        """float64 [64]: the counts to expect at the share of unknown queries that explains these best."""
        share = fit_share(counts, self.known + EMPTY, self.unknown + EMPTY)
        return np.asarray(counts.sum() * ((1 - share) * self.known + share * self.unknown))


def build_score_reference(model: LoadedModel, point: OperatingPoint) -> ScoreReference:
    """The scores of the gallery's items against each other; takes about as long as so many matches.

    Where no class has two items there are no known queries to ask; then the genuine pairs of the hold-out
    report stand for them, if it is of the same score.
    """
    gallery = model.gallery
    ids, labels, vectors, alone = _sample_items(gallery.view, SAMPLE)
    known: list[float] = []
    unknown: list[float] = []
    for start in range(0, len(ids), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        decisions = gallery.match(vectors[part], k=K, exclude_ids=list(ids[part]), candidates=2)
        for decision, label, is_alone in zip(decisions, labels[part], alone[part], strict=True):
            if decision.score is not None and not is_alone:
                known.append(decision.score)
            others = [candidate.score for candidate in decision.candidates if candidate.label != label]
            unknown += others[:1]
    from_items, from_others = np.array(known), np.array(unknown)
    if len(from_items) < len(from_others) / 4:
        from_items = _draw_known_scores(model, point, from_others)
    lowest = point.threshold
    if len(from_others):
        lowest = min(lowest, float(np.quantile(from_others, 1 - RARE)))
    return _describe_scores(point, from_items, from_others, lowest)


def build_pair_reference(model: LoadedModel, point: OperatingPoint) -> ScoreReference:
    """The scores of pairs of the gallery's items, of one class (known) and of two (unknown).

    Where too few classes have two items, the genuine pairs of the hold-out report stand for the former. How
    much alike the impostors are that are compared in use, no calibration can know: what is accepted, and
    scores that hardly any pair of two classes has, are looked at.
    """
    gallery = model.gallery
    _, labels, vectors, alone = _sample_items(gallery.view, SAMPLE)
    rng = np.random.default_rng(SEED)
    partners = [
        None if is_alone else _draw_partner(gallery.view, label, row, rng)
        for label, row, is_alone in zip(labels, vectors, alone, strict=True)
    ]
    paired = [row for row, partner in enumerate(partners) if partner is not None]
    others = rng.permutation(len(labels))
    apart = [row for row in range(len(labels)) if labels[row] != labels[others[row]]]
    same = np.stack([partner for partner in partners if partner is not None]) if paired else vectors[:0]
    genuine, impostor = (
        np.array([decision.score for decision in gallery.verify(a, b)] if len(a) else (), dtype=np.float64)
        for a, b in ((vectors[paired], same), (vectors[apart], vectors[others[apart]]))
    )
    if len(genuine) < len(impostor) / 4:
        genuine = _draw_genuine_scores(model, point, rng)
    lowest = point.threshold
    if len(impostor):
        lowest = min(lowest, float(np.quantile(impostor, 1 - RARE_PAIRS)))
    return _describe_scores(point, genuine, impostor, lowest)


def _describe_scores(
    point: OperatingPoint, known: Float64s, unknown: Float64s, lowest: float
) -> ScoreReference:
    mixture = MixtureReference.from_scores(known, unknown)
    accepted = MixtureReference.from_scores(known, unknown, ACCEPTED_BINS, lowest)
    reason = "" if accepted else "the gallery has too few classes of two items to say what scores to expect"
    find_bin = get_bin_finder(point.score)
    return ScoreReference(mixture, accepted, _count(known, find_bin), _count(unknown, find_bin), reason)


def _draw_partner(
    view: GalleryView, label: str, row: UnitVectors, rng: np.random.Generator
) -> UnitVectors | None:
    """Another item of the class, float32 [d]; None where all are the same vector."""
    parts = [np.asarray(part.vectors[rows[:OF_LABEL]]) for part, rows in _find_rows(view, label)]
    candidates = np.concatenate(parts)
    candidates = candidates[(candidates != row).any(axis=1)]
    return None if not len(candidates) else np.asarray(candidates[rng.integers(len(candidates))])


def _draw_known_scores(model: LoadedModel, point: OperatingPoint, unknown: Float64s) -> Float64s:
    """Best scores of known queries of one-item classes: a genuine pair's, unless another class is nearer."""
    rng = np.random.default_rng(SEED)
    genuine = _draw_genuine_scores(model, point, rng)
    if not len(unknown):
        return np.empty(0)
    return np.asarray(np.maximum(genuine, rng.choice(unknown, len(genuine))))


def _draw_genuine_scores(model: LoadedModel, point: OperatingPoint, rng: np.random.Generator) -> Float64s:
    """Scores of genuine pairs of the hold-out report, where it is of the point's score."""
    report = model.report
    curve = None if report is None else report.verification.curve
    if report is None or curve is None or report.score != point.score:
        return np.empty(0)
    # FRR rises with the threshold, and is the distribution of genuine scores
    frr, thresholds = np.array(curve.frr)[::-1], np.array(curve.threshold)[::-1]
    n = min(SAMPLE, report.counts.genuine_pairs)
    return np.asarray(np.interp(rng.random(n), frr, thresholds))


def _count(scores: Float64s, find_bin: Callable[[float], int]) -> Float64s:
    counts = (
        np.bincount([find_bin(score) for score in scores.tolist()], minlength=BINS)
        if len(scores)
        else np.zeros(BINS)
    )
    return np.asarray(counts / max(1, len(scores)), dtype=np.float64)


def _sample_items(view: GalleryView, n: int) -> tuple[list[str], list[str], UnitVectors, list[bool]]:
    """Evenly spaced items: ids, labels, vectors float32 [<= n, d], and which are alone in their class."""
    parts = [
        (part, np.arange(len(part)) if live is None else np.flatnonzero(live.rows))
        for part, live in view.parts
    ]
    total = sum(len(rows) for _, rows in parts)
    chosen = np.unique(np.linspace(0, max(0, total - 1), min(n, total)).astype(np.int64)).tolist()
    ids: list[str] = []
    labels: list[str] = []
    vectors: list[UnitVectors] = []
    start = 0
    for part, rows in parts:
        inside = np.asarray(
            [place - start for place in chosen if 0 <= place - start < len(rows)], dtype=np.int64
        )
        start += len(rows)
        at = rows[inside]
        ids += part.items.ids.take(at)
        labels += [part.items.classes[code] for code in part.items.label_codes[at].tolist()]
        vectors.append(np.asarray(part.vectors[at]))
    sizes = {label: sum(len(rows) for _, rows in _find_rows(view, label)) for label in set(labels)}
    stacked = np.concatenate(vectors) if vectors else np.empty((0, 1), dtype=np.float32)
    return ids, labels, stacked, [sizes[label] < 2 for label in labels]


def _find_rows(view: GalleryView, label: str) -> list[tuple[Generation, RowIndices]]:
    """The live rows of a class in each part."""
    found = []
    for part, live in view.parts:
        code = part.items.get_code(label)
        if code is not None:
            rows = part.items.get_rows_of_class(code)
            found.append((part, rows if live is None else rows[live.rows[rows]]))
    return found


class VectorReference:
    """Items of the classes that queries were matched with, as far as they would be matched themselves.

    An item that its own class does not accept is no reference: neither is a query that was not matched.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._of_label: dict[str, UnitVectors] = {}

    def select(self, labels: Sequence[str]) -> tuple[UnitVectors, Int64s, Int64s]:
        """Vectors float32 [n, d], their groups int64 [n], and the groups int64 [m] of the labels given."""
        names = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self._add([label for label in names if label not in self._of_label])
        while len(self._of_label) > MOST_LABELS:
            self._of_label.pop(next(iter(self._of_label)))
        parts = [self._of_label.get(label, np.empty((0, self._gallery.dim), np.float32)) for label in names]
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return np.concatenate(parts), groups, np.array([names[label] for label in labels], dtype=np.int64)

    def _add(self, labels: Sequence[str]) -> None:
        view = self._gallery.view
        asked: list[tuple[str, str, UnitVectors]] = []
        for label in labels:
            found = _find_rows(view, label)
            items = [
                (item_id, np.asarray(part.vectors[row]))
                for part, rows in found
                for item_id, row in zip(part.items.ids.take(rows[:OF_LABEL]), rows[:OF_LABEL], strict=True)
            ]
            if len(items) == 1:  # nothing else of its class could accept it
                self._of_label[label] = items[0][1][None]
            else:
                self._of_label[label] = np.empty((0, self._gallery.dim), np.float32)
                asked += [(label, item_id, vector) for item_id, vector in items[:OF_LABEL]]
        accepted: dict[str, list[UnitVectors]] = {}
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            vectors = np.stack([vector for _, _, vector in some])
            decisions = self._gallery.match(vectors, k=K, exclude_ids=[item_id for _, item_id, _ in some])
            for decision, (label, _, vector) in zip(decisions, some, strict=True):
                if decision.decision == "match" and decision.label == label:
                    accepted.setdefault(label, []).append(vector)
        self._of_label |= {label: np.stack(vectors) for label, vectors in accepted.items()}
