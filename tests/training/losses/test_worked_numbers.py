"""Examples computed by hand (or with a few lines of numpy) from the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.training.losses.cases import make
from tests.training.losses.naive import icnn as naive_icnn
from training.losses.parts.loss_batch import MixedPairs
from training.losses.unpg import compute_cross_entropy_with_pairs, drop_outliers


def place_on_circle(*degrees: float) -> Tensor:
    """Unit vectors in the plane, float64 [n, 2]."""
    angles = torch.tensor(degrees, dtype=torch.float64) * math.pi / 180
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_threshold_consistent_margin() -> None:
    items = torch.tensor([[0, 1], [0.43, 0.9], [1, 0], [0.5, 0.5]], dtype=torch.float64)
    loss = make("threshold_consistent_margin", margin_plus=0.9, margin_minus=0.5)
    assert float(loss(items, torch.tensor([0, 0, 1, 1]))) == pytest.approx(0.517876, abs=1e-6)


@pytest.mark.parametrize(
    ("positive", "negative", "margin", "gamma", "expected"),
    [
        ((0.8, 0.5), (0.3, 0.1), 0.4, 80, 1.785282),
        ((0.8, 0.5), (0.3, 0.1), 0.25, 256, 55.04),
        ((0.6,), (0.4,), 0.4, 80, math.log(2)),
    ],
)
def test_circle(
    positive: tuple[float, ...], negative: tuple[float, ...], margin: float, gamma: float, expected: float
) -> None:
    loss = make("circle", margin=margin, gamma=gamma)
    cosines = torch.tensor([[*positive, *negative]], dtype=torch.float64)
    is_positive = torch.arange(len(positive) + len(negative))[None] < len(positive)
    terms = loss.compute_pair_terms(cosines, is_positive, ~is_positive)
    assert float(terms["loss"]["losses"]) == pytest.approx(expected, abs=1e-6)


def test_unpg_and_its_filter() -> None:
    pairs = torch.tensor(
        [-0.30, -0.05, 0, 0.02, 0.05, 0.08, 0.10, 0.12, 0.15, 0.20, 0.95], dtype=torch.float64
    )
    logits = 16 * torch.tensor([[0.62, 0.10, 0.05], [0.08, 0.55, 0.12]], dtype=torch.float64)
    labels = torch.tensor([0, 1])

    def compute_loss(kept: Tensor) -> float:
        return float(compute_cross_entropy_with_pairs(logits, labels, 16 * kept).mean())

    assert drop_outliers(pairs, 1.0).tolist() == drop_outliers(pairs, 1.5).tolist() == pairs[1:-1].tolist()
    assert compute_loss(drop_outliers(pairs, 1.5)) == pytest.approx(0.006530, abs=1e-6)
    assert compute_loss(pairs[:0]) == pytest.approx(0.000961, abs=1e-6)
    assert compute_loss(drop_outliers(pairs, None)) == pytest.approx(5.843386, abs=1e-6)


def test_mean_field() -> None:
    items, labels, fields = (
        place_on_circle(0, 10, 40, 48),
        torch.tensor([0, 0, 1, 1]),
        place_on_circle(5, 40, 220),
    )
    contrastive = make("mean_field_contrastive", classes=3, dimension=2)
    contrastive.fields.data = fields
    assert float(contrastive(items, labels).detach()) == pytest.approx(0.095644, abs=1e-6)
    contrastive.regularization = 1.0
    assert float(contrastive.compute_regularizer().detach()) == pytest.approx(0.009465, abs=1e-6)
    assert float(contrastive(items, labels).detach()) == pytest.approx(0.095644 + 0.009465, abs=2e-6)
    class_wise = make("mean_field_class_wise_multi_similarity", classes=3, dimension=2)
    class_wise.fields.data = fields
    assert float(class_wise(items, labels).detach()) == pytest.approx(69.245824, abs=1e-6)


def test_proxies() -> None:
    items, labels, proxies = place_on_circle(0, 40), torch.tensor([0, 1]), place_on_circle(10, 60, 200)
    expected = {"proxy_nca": 0.485739, "proxy_nca_plus_plus": 0.117828, "proxy_anchor": 16.704271}
    for name, value in expected.items():
        loss = make(name, classes=3, dimension=2)
        loss.proxies.data = proxies
        assert float(loss(items, labels).detach()) == pytest.approx(value, abs=1e-6)


def test_soft_triple() -> None:
    loss = make("soft_triple", classes=2, dimension=2, centers_per_class=2, tau=0.0)
    loss.fc.data = place_on_circle(10, 20, 60, 80).T
    assert float(loss(place_on_circle(0, 40), torch.tensor([0, 1])).detach()) == pytest.approx(
        0.411087, abs=1e-6
    )
    assert float(loss.compute_regularizer().detach()) == pytest.approx(
        0.130413, abs=2e-5
    )  # the authors' floor adds 1e-5


def test_metrix_of_multi_similarity_and_contrastive() -> None:
    anchor, mixed = place_on_circle(0)[0], 0.6 * place_on_circle(30)[0] + 0.4 * place_on_circle(80)[0]
    unit = mixed / mixed.norm()
    assert unit.tolist() == pytest.approx([0.647163, 0.762351], abs=1e-6)
    similarity = (anchor @ unit).reshape(1, 1)
    pairs = MixedPairs(
        similarity,
        torch.full_like(similarity, 0.6),
        torch.ones(1, 1, dtype=torch.bool),
        (anchor @ place_on_circle(30)[0]).reshape(1, 1),
        (anchor @ place_on_circle(80)[0]).reshape(1, 1),
    )
    loss = make("multi_similarity", alpha=18, beta=75, base=0.77)
    assert float(loss.compute_mixed_terms(pairs)["loss"]["losses"]) == pytest.approx(0.103777, abs=1e-6)
    contrastive = make("contrastive", negative_margin=0.5).compute_mixed_terms(pairs)
    total = contrastive["pos_loss"]["losses"] + contrastive["neg_loss"]["losses"]
    assert float(total) == pytest.approx(0.504026, abs=1e-6)


def test_icnn_follows_its_loop_at_other_neighbourhoods() -> None:
    items, labels = place_on_circle(0, 10, 21, 50, 80, 112, 130, 136, 190), torch.arange(9) // 3
    for k, reach in ((2, 5), (4, 5), (2, 3)):
        expected = naive_icnn(None, items, labels, k, reach)
        loss = make("icnn", k=k, reach=reach)
        assert float(loss(items, labels)) == pytest.approx(float(expected), rel=1e-5)


def test_proto_triplet_of_an_episode() -> None:
    # chords: 10 degrees 0.174311, 20: 0.347296, 30: 0.517638, 40: 0.684040; supports at 0, 90 and 50 degrees
    support, ref_labels = place_on_circle(0, 90, 50), torch.tensor([0, 1, 2])
    items, labels = place_on_circle(30, 80, 50), torch.tensor([0, 1, 2])
    # own - nearest other + 0.5: 0.517638 - 0.347296, 0.174311 - 0.517638, 0 - 0.684040 (no hinge)
    expected = (0.670342 + 0.156673 + 0) / 3
    loss = make("proto_triplet")(items, labels, None, support, ref_labels)
    assert float(loss) == pytest.approx(expected, abs=2e-6)
    episode, of_class = torch.cat([support, items]), torch.cat([ref_labels, labels])
    torch.testing.assert_close(make("proto_triplet", shots=1)(episode, of_class), loss)


def test_icnn() -> None:
    items, labels = place_on_circle(0, 20, 60, 95, 110), torch.tensor([0, 0, 1, 1, 1])
    # positives over the nearest negative: d20/d60, d20/d40, d35/d40, mean(d15, d35)/d75, mean(d15, d50)/d90
    same = 1 - (0.347296 + 0.507714 + 0.879206 + 0.354188 + 0.391132) / 5
    different = (1 + 0.684040 + 0.684040) / 3  # negatives among the two nearest: d60, d40 and d40
    fraction = (1 + 1 + 1 + 2 + 2) / 10
    score = ((same + different) / 2 + fraction) / 2
    assert score == pytest.approx(0.673363, abs=1e-6)
    assert float(make("icnn", k=2, reach=3)(items, labels)) == pytest.approx(-math.log(score), abs=2e-6)
