"""Metrix: the generalised form, the mixtures, their choice, all levels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import CLASSES, DIMENSION, NAMES, batch, compute_value_and_gradient, make
from training.losses import LOSSES
from training.losses.parts.loss_batch import MixedPairs
from training.objective.mixup import build_mixup
from training.objective.mixup.metrix import Metrix, mix_embeddings
from training.objective.mixup.pair_selection import (
    build_anchor_pairs,
    select_anchor_negative,
    select_positive_negative,
)

FITS = [name for name in NAMES if LOSSES[name].roles]
ISSUE = {
    *("contrastive", "multi_similarity", "proxy_anchor", "proxy_nca"),
    *("binomial_deviance", "lifted_structure", "triplet", "circle"),
}


def test_it_fits_the_losses_it_should() -> None:
    assert set(FITS) >= ISSUE
    with pytest.raises(ConfigError, match="no generalised form"):
        build_mixup(NamedPart(name="metrix"), make("icnn"))
    with pytest.raises(ConfigError, match="did you mean 'hardest'"):
        build_mixup(NamedPart(name="metrix", hardst=2), make("triplet"))
    with pytest.raises(ConfigError, match="level: Input should be 'input', 'fea"):
        build_mixup(NamedPart(name="metrix", level="pixel"), make("triplet"))


@pytest.mark.parametrize("name", ["multi_similarity", "circle", "lifted_structure", "contrastive"])
def test_the_generalised_form_over_whole_labels_is_the_clean_loss(name: str) -> None:
    loss = make(name)
    items, labels = batch()
    labels = torch.arange(15) % 3  # every anchor has both kinds: a padded form cannot hold others
    unit = F.normalize(items.detach())
    s = unit @ unit.T
    same = (labels[:, None] == labels).double()
    pairs = MixedPairs(s, same, ~torch.eye(15, dtype=torch.bool), s, s)
    clean = loss(items, labels)
    torch.testing.assert_close(loss.reducer(loss.compute_mixed_terms(pairs), unit, labels), clean.detach())


def test_the_generalised_form_of_proxy_anchor_is_the_clean_loss() -> None:
    loss = make("proxy_anchor", classes=3)
    items, labels = batch()
    labels = torch.arange(15) % 3
    s = F.normalize(loss.proxies.detach()) @ F.normalize(items.detach()).T
    same = (torch.arange(3)[:, None] == labels).double()
    pairs = MixedPairs(s, same, torch.ones_like(s, dtype=torch.bool), s, s)
    mixed = loss.compute_mixed_terms(pairs)["loss"]["losses"]
    torch.testing.assert_close(mixed, loss(items, labels).detach())


def test_mixed_items_push_proxies_as_hard_as_clean_ones_however_many_classes_there_are() -> None:
    loss = make("proxy_anchor", classes=100)
    items, _ = batch()
    labels = torch.arange(15) % 3
    s = F.normalize(loss.proxies.detach()) @ F.normalize(items.detach()).T
    same = (torch.arange(100)[:, None] == labels).double()
    pairs = MixedPairs(s[:3], same[:3], torch.ones(3, 15, dtype=torch.bool), s[:3], s[:3])
    mixed = loss.compute_mixed_terms(pairs)["loss"]["losses"]
    of_absent = torch.log1p(torch.exp(32 * (s[3:] + 0.1)).sum(1)).sum() / 100  # in the clean loss alone
    torch.testing.assert_close(mixed, loss(items, labels).detach() - of_absent)


def _mix_in_a_loop(
    items: Tensor, labels: Tensor, fraction: float, hardest: int
) -> list[list[tuple[float, int, int]]]:
    """For each anchor its mixtures (cosine, positive, negative), built as vectors."""
    unit = F.normalize(items.detach())
    s = unit @ unit.T
    rows = []
    for a in range(len(labels)):
        negatives = sorted(
            (j for j in range(len(labels)) if labels[j] != labels[a]), key=lambda j: -float(s[a, j])
        )
        row = []
        for p in range(len(labels)):
            if p != a and labels[p] == labels[a]:
                for n in negatives[:hardest]:
                    v = F.normalize(fraction * unit[p] + (1 - fraction) * unit[n], dim=0)
                    row.append((float(unit[a] @ v), p, n))
        rows.append(sorted(row))
    return rows


@pytest.mark.parametrize("hardest", [1, 3, 100])
def test_mixtures_are_those_of_a_loop(hardest: int) -> None:
    items, labels = batch()
    pair = build_anchor_pairs(make("multi_similarity"), "items", items.detach(), labels, None)
    choice = select_positive_negative(pair, hardest, None)
    fraction = 0.3
    pairs = mix_embeddings(choice, fraction)
    for a, row in enumerate(_mix_in_a_loop(items, labels, fraction, hardest)):
        keep = choice.valid[a]
        mixtures = zip(
            pairs.similarity[a, keep].tolist(),
            choice.first[a, keep].tolist(),
            choice.negative[a, keep].tolist(),
            strict=True,
        )
        assert [tuple(part[1:]) for part in sorted(mixtures)] == [part[1:] for part in row]
        assert sorted(pairs.similarity[a, keep].tolist()) == pytest.approx([part[0] for part in row])


@pytest.mark.parametrize("name", FITS)
def test_with_no_weight_it_is_the_clean_loss(name: str) -> None:
    items, labels = batch()
    value, gradient = compute_value_and_gradient(Metrix(make(name), weight=0.0).double(), items, labels)
    clean, clean_gradient = compute_value_and_gradient(make(name), items, labels)
    torch.testing.assert_close(value, clean)
    torch.testing.assert_close(gradient, clean_gradient)


def test_every_anchor_has_anchor_negative_mixtures() -> None:
    items, labels = batch()
    pair = build_anchor_pairs(make("triplet"), "items", items.detach(), labels, None)
    choice = select_anchor_negative(pair, 3, None)
    assert choice.valid.all()  # also the anchors that have positives
    torch.testing.assert_close(choice.to_negative, choice.first_to_negative)


@pytest.mark.parametrize("kind", ["positive_negative", "anchor_negative"])
@pytest.mark.parametrize("name", [name for name in FITS if name != "circle"])  # its weights have no gradient
def test_gradients_are_those_of_the_value(name: str, kind: str) -> None:
    metrix = Metrix(make(name), kind=kind).double()
    items, labels = batch(n=9, seed=4)

    def compute_value(items: Tensor) -> Tensor:
        torch.manual_seed(3)
        return metrix(items, labels)

    assert torch.autograd.gradcheck(compute_value, (items,), eps=1e-6, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("level", ["input", "feature"])
@pytest.mark.parametrize("name", FITS)
def test_inputs_and_features_are_mixed_and_sent_through(name: str, level: str) -> None:
    metrix = Metrix(make(name), level=level, weight=1.0)
    network = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, DIMENSION)).double()
    inputs = torch.randn(15, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, labels = batch()
    seen: list[Tensor] = []

    def encode(mixed: Tensor) -> Tensor:
        seen.append(mixed)
        return network(mixed)

    value = metrix(network(inputs), labels, mixable=inputs, encode=encode)
    clean = metrix.loss(network(inputs), labels)
    assert torch.isfinite(value)
    assert value != clean
    assert len(seen) == 1
    assert len(seen[0]) <= 15 * 3  # one positive of each anchor with its three hardest negatives
    value.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", FITS)
def test_what_is_mixed_at_input_level_is_of_two_classes(name: str) -> None:
    _, labels = batch()
    inputs = F.one_hot(labels, CLASSES).double()  # a mixture shows the classes that it is made of
    seen: list[Tensor] = []

    def encode(mixed: Tensor) -> Tensor:
        seen.append(mixed)
        return torch.randn(len(mixed), DIMENSION, dtype=torch.float64)

    metrix = Metrix(make(name), level="input", kind="positive_negative")
    metrix(batch()[0], labels, mixable=inputs, encode=encode)
    assert ((seen[0] > 0).sum(1) == 2).all()
    assert len(torch.unique(seen[0].max(1).values)) == 1  # one fraction for the batch


def test_mixing_inputs_of_a_linear_network_is_mixing_embeddings() -> None:
    inputs, labels = batch()
    inputs = F.normalize(inputs.detach())
    by_level = []
    for level in ("embedding", "input"):
        metrix = Metrix(make("multi_similarity"), level=level, kind="positive_negative", positives=100)
        torch.manual_seed(0)
        by_level.append(metrix(inputs, labels, mixable=inputs, encode=nn.Identity()))
    torch.testing.assert_close(*by_level)


def test_class_vectors_that_are_compared_with_can_be_mixed_with_each_other() -> None:
    loss = make("proxy_nca")
    items, labels = batch()
    pair = build_anchor_pairs(loss, "class_references", items.detach(), labels, None)
    choice = select_positive_negative(pair, 2, None)
    assert choice.first[choice.valid].tolist() == labels.repeat_interleave(2).tolist()
    assert int(choice.negative.max()) < CLASSES
    assert not (choice.first == choice.negative).any()


@pytest.mark.parametrize("name", FITS)
def test_degenerate_batches_stay_finite(name: str) -> None:
    for items, labels in (
        (torch.ones(4, DIMENSION), torch.tensor([0, 0, 1, 1])),
        (torch.cat([torch.eye(2, DIMENSION), -torch.eye(2, DIMENSION)]), torch.tensor([0, 1, 1, 0])),
        (torch.eye(4, DIMENSION), torch.zeros(4).long()),
        (torch.eye(4, DIMENSION), torch.arange(4)),
    ):
        for kind in ("positive_negative", "anchor_negative"):
            value, gradient = compute_value_and_gradient(Metrix(make(name).float(), kind=kind), items, labels)
            assert torch.isfinite(value)
            assert torch.isfinite(gradient).all()


def test_the_positivity_threshold_of_the_paper() -> None:
    # v pulls iff s <= m + ln(lambda / (1 - lambda)) / (beta + gamma), log-denominators dropped (section 3.5)
    loss = make("binomial_deviance", beta=18.0, gamma=75.0, middle=0.77)
    threshold = 0.77 + torch.log(torch.tensor(0.6 / 0.4)).item() / (18 + 75)
    assert threshold == pytest.approx(0.774360, abs=1e-6)
    for similarity, pulls in ((0.647163, True), (0.95, False)):
        s = torch.tensor([[similarity]], dtype=torch.float64, requires_grad=True)
        pairs = MixedPairs(s, torch.full_like(s, 0.6), torch.ones(1, 1, dtype=torch.bool), s, s)
        (slope,) = torch.autograd.grad(loss.compute_mixed_terms(pairs)["loss"]["losses"].sum(), s)
        assert (slope < 0) == pulls
