"""The retrieval family, and losses beside another: what their parameters and state do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.training.losses.cases import batch, compute_value_and_gradient, make
from tests.training.losses.naive import arm, lmpt, uncertainty
from training.losses import TrainingClasses
from training.losses.soft_top_k import compute_soft_threshold


def test_siglip_learns_the_probability_that_a_pair_of_its_batches_matches() -> None:
    generator = torch.Generator().manual_seed(0)
    loss = make("siglip").train()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    labels = torch.arange(40) // 2
    for _ in range(300):  # cosines of a fixed law: the scale and the offset are all there is to learn
        means = F.normalize(torch.randn(20, 6, dtype=torch.float64, generator=generator))
        items = means[labels] + 0.4 * torch.randn(40, 6, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        loss(items, labels).backward()
        optimizer.step()
    found = loss.match_probability
    assert found is not None
    assert found.kind == "platt"
    assert found.prior == pytest.approx(1 / 39)
    assert found.parameters["slope"] == pytest.approx(float(loss.log_scale.detach().exp()))
    units = F.normalize(items)
    same, off = labels[:, None] == labels, ~torch.eye(40, dtype=torch.bool)
    chance = torch.sigmoid(found.parameters["slope"] * (units @ units.T) + found.parameters["intercept"])
    # of the pairs of a batch as many match as it says
    assert float(chance[off].mean()) == pytest.approx(float(same[off].double().mean()), rel=0.3)
    fresh = make("siglip").train()
    assert fresh.match_probability is None, "nothing was seen yet"
    fresh(items, labels)
    assert float(fresh.offset.detach()) == pytest.approx(math.log(1 / 38), rel=1e-6)
    fresh(items[:4], labels[:4])
    assert float(fresh.offset.detach()) == pytest.approx(math.log(1 / 38), rel=1e-6)
    kept = make("siglip", offset=-10.0).train()
    kept(items, labels)
    assert float(kept.offset.detach()) == -10


def test_decoupled_softmax_is_nt_xent_averaged_by_anchors() -> None:
    items, labels = batch()
    plain = make("nt_xent", temperature=0.05, average="anchors")
    torch.testing.assert_close(make("decoupled_softmax")(items, labels), plain(items, labels))


@pytest.mark.parametrize("wanted", [1, 4])
def test_the_soft_top_k_holds_k(wanted: int) -> None:
    values = 30 * torch.randn(5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(wanted))
    among = torch.ones(5, 9, dtype=torch.bool)
    among[:, -2:] = False
    found = compute_soft_threshold(values, among, torch.full((5,), wanted))
    held = torch.where(among, torch.sigmoid(values + found[:, None]), 0).sum(1)
    torch.testing.assert_close(held, torch.full_like(held, wanted))


def test_a_longer_list_asks_for_less() -> None:
    items, labels = batch()
    short, long = make("soft_top_k", k=1), make("soft_top_k", k=8)
    assert long(items, labels) < short(items, labels)
    with pytest.raises(Exception, match="k at least 1"):
        make("soft_top_k", k=0)


def test_the_adaptive_margin_is_that_of_the_own_positive() -> None:
    items, labels = batch()
    torch.testing.assert_close(
        make("arm", form="adaptive")(items, labels), arm(make("arm"), items, labels, "adaptive")
    )


def test_ccl_sums_negatives_without_a_weight() -> None:
    items, labels = batch(n=12)
    labels = torch.arange(12) % 3  # eight negatives each
    torch.testing.assert_close(
        make("ccl", weight=None)(items, labels), make("ccl", weight=8.0)(items, labels)
    )


def test_the_penalty_of_clp_is_about_the_hard_negatives_alone() -> None:
    items, labels = batch()
    pulled = make("clp", penalty=1.0, negatives=1)
    _, gradient = compute_value_and_gradient(pulled, items, labels)
    s = F.normalize(items.detach()) @ F.normalize(items.detach()).T
    hard = s.masked_fill(labels[:, None] == labels, -2).argmax(1)
    anchors = [a for a in range(15) if int((labels == labels[a]).sum()) > 1]
    touched = {int(labels[hard[a]]) for a in anchors}
    untouched = [i for i in range(15) if int(labels[i]) not in touched]
    assert all(gradient[i].abs().max() == 0 for i in untouched)
    assert gradient.abs().max() > 0


def test_targets_are_blurred_in_training_alone() -> None:
    items, labels = batch()
    loss = make("uncertainty")
    torch.manual_seed(5)
    noise = torch.randn_like(items), torch.randn_like(items)
    torch.manual_seed(5)
    torch.testing.assert_close(loss.train()(items, labels), uncertainty(loss, items, labels, noise))
    torch.testing.assert_close(loss.eval()(items, labels), uncertainty(loss, items, labels))


def test_a_rare_class_has_a_wider_margin_and_more_weight() -> None:
    items, labels = batch()
    sizes = (100, 20, 5, 2, 1)
    known = TrainingClasses(tuple("abcde"), sizes, ((),) * 5)
    loss = make("lmpt", classes=known)
    torch.testing.assert_close(loss(items, labels), lmpt(loss, items, labels, sizes))
    assert loss.margins.tolist() == sorted(loss.margins.tolist())
    assert loss.class_weights.sum() == pytest.approx(5)


def test_neural_collapse_moves_its_means_evenly_apart() -> None:
    loss = make("neural_collapse", classes=4, dimension=6, within=0.0, between=1.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    items, labels = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 4
    for _ in range(500):
        optimizer.zero_grad()
        loss(items, labels).backward()
        optimizer.step()
    centred = F.normalize(loss.means.detach() - loss.means.detach().mean(0))
    cosines = (centred @ centred.T)[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(cosines, torch.full_like(cosines, -1 / 3), rtol=0, atol=0.03)
    tight = make("neural_collapse", classes=4, dimension=6, within=1.0, between=0.0)
    few = torch.tensor([0, 1, 1, 1, 1, 1, 1, 1])
    of_class = [(F.normalize(items)[few == c] - tight.means[c]).square().sum(1).mean() for c in (0, 1)]
    torch.testing.assert_close(tight(items, few), sum(of_class) / 2)


def test_mixtures_must_not_outrank_the_positive() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 40.0, -20.0, 180.0], dtype=torch.float64))
    items = torch.stack([angles.cos(), angles.sin()], 1)
    labels = torch.tensor([0, 0, 1, 2])
    loss = make("rank_mixup", dimension=2, margin=0.0)
    # the anchor at 0 lies between its positive at 40 and the negative at -20: half of each is nearer than
    # the positive alone
    assert loss(items, labels) > 0
    apart = torch.stack([torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.1]), torch.tensor([-1.0, 0.0])])
    assert loss(apart.double(), torch.tensor([0, 0, 1])) == 0
    with pytest.raises(Exception, match="ratios must fall"):
        make("rank_mixup", ratios=[0.5, 0.75])


def test_reliable_positives_count_more() -> None:
    items, labels = batch()
    plain = make("nt_xent", temperature=0.1)
    torch.testing.assert_close(make("isr", power=0.0)(items, labels), plain(items, labels))
    angles = torch.deg2rad(torch.tensor([0.0, 5.0, 90.0, 100.0, 180.0], dtype=torch.float64))
    items = torch.stack([angles.cos(), angles.sin()], 1)
    doubtful = torch.tensor([0, 0, 0, 1, 2])  # the third belongs to the fourth
    _, even = compute_value_and_gradient(make("isr", power=0.0, dimension=2), items, doubtful)
    _, weighted = compute_value_and_gradient(make("isr", power=2.0, dimension=2), items, doubtful)
    assert weighted[2].norm() < 0.1 * even[2].norm()
    assert math.isfinite(float(weighted.norm()))
