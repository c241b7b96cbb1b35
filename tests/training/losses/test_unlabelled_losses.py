"""Losses for training without labels: state of every item, clusters, sorting; bad pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from api_schemas.config import BadPairsConfig
from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import DIMENSION, NAMES, batch, compute_value_and_gradient, make
from tests.training.losses.naive import amcl
from training.losses import TrainingClasses, build_loss
from training.losses.groco import compute_soft_permutation
from training.objective.bad_pairs import track_bad_pairs


def _draw_views(seed: int, items: int = 8, draws: int = 4) -> tuple[Tensor, Tensor]:
    """Two views each of some of so many items; labels are the items."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(items, generator=generator)[:draws].repeat_interleave(2)
    return torch.randn(2 * draws, DIMENSION, generator=generator, dtype=torch.float64), rows


def test_temperatures_of_items_follow_the_formula_step_by_step() -> None:
    known = TrainingClasses.build_placeholder(8)
    loss = make("isogclr", classes=known, temperature=0.2, rho=0.4, gamma=0.6, rate=0.05, beta=0.7).train()
    tau, u, v = ([value] * 8 for value in (0.2, 0.0, 0.0))
    for step in range(12):
        items, rows = _draw_views(step)
        total = float(loss(items, rows).detach())
        s = (F.normalize(items) @ F.normalize(items).T).tolist()
        moved: dict[int, list[tuple[float, float]]] = {}
        expected = 0.0
        for i, row in enumerate(rows.tolist()):
            (partner,) = (j for j in range(8) if j != i and int(rows[j]) == row)
            h = [s[i][j] - s[i][partner] for j in range(8) if int(rows[j]) != row]
            now = sum(math.exp(value / tau[row]) for value in h) / 6
            mean = now if u[row] == 0 else 0.4 * u[row] + 0.6 * now
            p = [math.exp(value / tau[row]) / mean for value in h]
            weighted = sum(a * b for a, b in zip(p, h, strict=True)) / 6
            expected += weighted / 8
            moved.setdefault(row, []).append((mean, math.log(mean) + 0.4 - weighted / tau[row]))
        assert total == pytest.approx(expected)
        for row, pairs in moved.items():
            u[row] = sum(mean for mean, _ in pairs) / 2
            v[row] = 0.3 * v[row] + 0.7 * sum(slope for _, slope in pairs) / 2
            tau[row] = min(0.7, max(0.05, tau[row] - 0.05 * v[row]))
    assert loss.temperatures.tolist() == pytest.approx(tau)
    assert len(set(tau)) > 4
    assert loss.collect_figures()["isogclr_temperature"] == pytest.approx(sum(tau) / 8)
    before = loss.temperatures.clone()
    loss(items, rows, None, items.detach(), rows)
    loss.eval()(items, rows)
    torch.testing.assert_close(loss.temperatures, before, msg="a memory and an evaluation move nothing")
    copy = make("isogclr", classes=known, temperature=0.2, rho=0.4, gamma=0.6, rate=0.05, beta=0.7)
    copy.load_state_dict(loss.state_dict())
    torch.testing.assert_close(copy(items, rows), loss(items, rows))


def test_state_belongs_to_rows_where_they_are_known() -> None:
    known = TrainingClasses(("a", "b"), (3, 4), ((), ()))
    loss = make("isogclr", classes=known).train()
    items, labels = torch.randn(4, DIMENSION, dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    loss.rows = torch.tensor([0, 2, 3, 6])
    loss(items, labels)
    assert (loss.totals > 0).tolist() == [True, False, True, True, False, False, True]
    loss.rows = torch.tensor([0, 2, 3, 7])
    with pytest.raises(ValueError, match="state for 7 items; found rows 0 to 7"):
        loss(items, labels)


def test_a_sorting_network_sorts() -> None:
    values = torch.randn(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = compute_soft_permutation(values, 1e9)
    torch.testing.assert_close(
        (moved @ values[:, :, None])[:, :, 0], values.sort(1).values, rtol=0, atol=1e-6
    )
    soft = compute_soft_permutation(values, 1.0)
    torch.testing.assert_close(soft.sum(1), torch.ones(6, 7, dtype=torch.float64))
    torch.testing.assert_close(soft.sum(2), torch.ones(6, 7, dtype=torch.float64))


def test_groco_is_low_where_positives_come_first() -> None:
    unit = torch.eye(DIMENSION, dtype=torch.float64)
    right = torch.cat([unit, unit])  # two views of each are the same, others are at right angles
    wrong = torch.cat([unit, unit.roll(1, 0)])
    labels = torch.arange(DIMENSION).repeat(2)
    steep = make("groco", steepness=100.0)
    assert steep(right, labels) < 0.2 * steep(wrong, labels)


def test_a_temperature_for_each_pair_is_that_of_a_plain_loop() -> None:
    loss = make("amcl", heads=2, beta=0.3, nearest=0.3)
    items, labels = batch()
    value, gradient = compute_value_and_gradient(loss, items, labels)
    expected = amcl(loss, items, labels)
    (expected_gradient,) = torch.autograd.grad(expected, items)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, expected_gradient)


def test_temperatures_that_know_no_labels_do_not_pull_everything_together() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    loss, labels = make("amcl"), torch.arange(12).repeat(2)
    network = torch.nn.Linear(16, DIMENSION).double()
    optimizer = torch.optim.Adam([*network.parameters(), *loss.parameters()], lr=0.01)
    shapes = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    for _ in range(100):
        noise = torch.randn(24, 16, generator=generator, dtype=torch.float64)
        items = network(torch.cat([shapes, shapes]) + 0.5 * noise)
        optimizer.zero_grad()
        loss(items, labels).backward()
        optimizer.step()
    cosines = F.normalize(items.detach()) @ F.normalize(items.detach()).T
    apart = cosines[labels[:, None] != labels].mean()
    assert apart < 0.2  # 12 items in 8 numbers have room to be at right angles
    assert cosines[torch.arange(12), torch.arange(12, 24)].mean() > apart + 0.4


def test_clusters_join_items_of_one_kind() -> None:
    generator = torch.Generator().manual_seed(2)
    shapes = torch.eye(3, DIMENSION, dtype=torch.float64)
    kinds = torch.arange(30) % 3
    known = TrainingClasses.build_placeholder(30)
    settings = {"clusters": 3, "start": 8, "every": 2, "weight": 0.0}
    loss = build_loss(NamedPart(name="interclr", **settings), classes=known, embedding_dim=DIMENSION).double()
    for step in range(12):
        rows = torch.randperm(30, generator=generator)[:15].repeat_interleave(2)
        noise = 0.1 * torch.randn(30, DIMENSION, generator=generator, dtype=torch.float64)
        items = (shapes[kinds[rows]] + noise).requires_grad_()
        value = loss(items, rows)
        assert (float(value.detach()) > 0) == (step >= 8), "before the first clustering nothing is compared"
    groups = {kind: set(loss.assigned[(kinds == kind) & loss.seen].tolist()) for kind in range(3)}
    assert all(len(group) == 1 for group in groups.values())
    assert len(set.union(*groups.values())) == 3
    copy = build_loss(NamedPart(name="interclr", **settings), classes=known, embedding_dim=DIMENSION).double()
    copy.load_state_dict(loss.state_dict())
    for part in (loss, copy):
        torch.manual_seed(0)
        torch.testing.assert_close(part.eval()(items, rows), part(items, rows), rtol=1, atol=1)
    _, gradient = compute_value_and_gradient(loss, items, rows)
    _, same = compute_value_and_gradient(copy, items, rows)
    torch.testing.assert_close(gradient, same)
    assert gradient.abs().max() > 0


def test_an_empty_cluster_takes_over_the_item_farthest_from_the_largest() -> None:
    known = TrainingClasses.build_placeholder(4)
    spec = NamedPart(name="interclr", clusters=2, start=1, every=1)
    loss = build_loss(spec, classes=known, embedding_dim=2).double()
    angles = torch.deg2rad(torch.tensor([0.0, 5.0, 10.0, 60.0], dtype=torch.float64))
    items = torch.stack([angles.cos(), angles.sin()], 1)
    loss(items.requires_grad_(), torch.arange(4))
    loss.centers.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    loss(items, torch.arange(4))
    assert loss.assigned.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(loss.centers[1], items[3].detach())


def _track(name: str, items: int = 40, **config: float) -> Tensor:
    known = TrainingClasses.build_placeholder(items)
    loss = build_loss(NamedPart(name=name), classes=known, embedding_dim=DIMENSION).double()
    track_bad_pairs(loss, BadPairsConfig(**config), items, DIMENSION)
    return loss.double()


@pytest.mark.parametrize("name", ["nt_xent", "sup_con", "contrastive"])
def test_items_that_were_bad_positives_so_far_count_little(name: str) -> None:
    loss, plain = _track(name, warmup=2), make(name)
    generator = torch.Generator().manual_seed(1)
    first = F.normalize(torch.randn(40, DIMENSION, generator=generator, dtype=torch.float64))
    second = F.normalize(first + 0.3 * torch.randn(40, DIMENSION, generator=generator, dtype=torch.float64))
    second[7] = first[7].roll(1)  # its views have nothing in common
    items, labels = torch.cat([first, second]), torch.arange(40).repeat(2)
    for step in range(2):
        weighed, _ = compute_value_and_gradient(loss, items, labels)
        assert step > 0 or weighed == compute_value_and_gradient(plain, items, labels)[0]
    _, gradient = compute_value_and_gradient(loss, items, labels)
    _, unweighed = compute_value_and_gradient(plain, items, labels)
    assert loss.reducer.collect_figures()["faulty_pairs"] == pytest.approx(1 / 40)
    moved = (gradient - unweighed).norm(dim=1) / unweighed.norm(dim=1).clamp(min=1e-9)
    assert moved[7] > 0.3
    sums, counts = loss.reducer.sums.clone(), loss.reducer.counts.clone()
    loss.eval()(items, labels)
    torch.testing.assert_close(loss.reducer.sums, sums)
    assert counts.tolist() == [3] * 40


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_of_an_item_belongs_to_it_wherever_it_stands_in_the_batch(name: str) -> None:
    items = torch.randn(10, DIMENSION, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = torch.tensor([2, 0, 3, 1, 0, 2, 2, 4, 1, 0])  # two of them the only ones of their class
    loss, order = make(name), torch.argsort(labels, stable=True)

    def collect(rows: Tensor) -> list[tuple[int, float]]:
        x, y = items[rows], labels[rows]
        terms = loss.compute_loss(x, y, None, x, y)
        return sorted(
            (int(rows[row]), round(float(value), 9))
            for term in terms.values()
            if term["reduction_type"] == "element"
            for row, value in zip(term["indices"], term["losses"].detach(), strict=True)
        )

    assert collect(order) == collect(torch.arange(10))


def test_bad_pairs_are_for_losses_of_single_pairs() -> None:
    with pytest.raises(ConfigError, match=r"loss \(triplet\): bad_pairs weighs losses of single items"):
        _track("triplet")
    with pytest.raises(ConfigError, match=r"loss \(arm\)"):
        _track("arm")


def test_the_weight_is_the_bell_curve_of_the_current_loss() -> None:
    loss = _track("nt_xent", warmup=1, low=1.0, high=1.0, items=6)
    reducer = loss.reducer
    reducer.sums.copy_(torch.tensor([1.0, 1.0, 1.0, 1.0, 5.0, 0.0]))
    reducer.counts.fill_(1)
    means = [1.0, 1.0, 1.0, 1.0, 5.0, 0.0]
    mu = sum(means) / 6
    sigma = math.sqrt(sum((m - mu) ** 2 for m in means) / 6)
    losses = torch.tensor([2.0, 2.0], dtype=torch.float64)
    weights = reducer._compute_weights(losses, torch.tensor([0, 4]))
    assert weights.tolist() == pytest.approx([1.0, math.exp(-((2 - mu) ** 2) / (2 * sigma**2))])


def test_pamc_costs_classes_and_not_pairs() -> None:
    items, labels = batch()
    _, together = compute_value_and_gradient(make("pamc"), items, labels)
    assert together.abs().max() > 0
    alone = make("pamc")(items[:1], labels[:1])
    assert alone == 0
