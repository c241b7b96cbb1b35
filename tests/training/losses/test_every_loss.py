"""Properties of every registered loss."""

from __future__ import annotations

import inspect

import pytest
import torch

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError, InputError
from tests.training.losses.cases import CLASSES, DIMENSION, NAMES, batch, compute_value_and_gradient, make
from training.losses import LOSSES, TrainingClasses, build_loss, list_losses
from training.losses.base import BaseMetricLossFunction
from training.registry import list_settings

WHOLE_BATCH = {
    "icnn",
    "fast_ap",
    "pnp",
    "ge2e",
    "angular_prototypical",
    "ckd",
    "margin_mse",
    "higher_order_compatibility",
    "backward_compatible",
    "prototype_relation",
    "pamc",
    "interclr",
    "isr",
}  # there are no pairs to choose: each item is ranked among all others
COMPARED_WITH_ALL = {
    *("angular", "margin", "nca", "proto_triplet", "unpg", "nd", "icnn"),
    *("arm", "clp", "uncertainty"),
}
# by definition; their twins stop it too
STOPS_GRADIENT = {
    "groco",
    "isogclr",
    "isr",
    "circle",
    "circle_softmax",
    "sface",
    "nd",
    "threshold_consistent_margin",
    "opis_variance",
    "ckd",
    "higher_order_compatibility",
    "backward_compatible",
    "prototype_relation",
}
ISSUE = [
    "triplet",
    "circle",
    "contrastive",
    "multi_similarity",
    "proxy_nca",
    "proxy_nca_plus_plus",
    "proxy_anchor",
    "soft_triple",
    "threshold_consistent_margin",
    "unpg",
    "mean_field_contrastive",
    "mean_field_class_wise_multi_similarity",
    "proto_triplet",
    "icnn",
    "sface",
    "normalized_softmax",
    "partial_fc",
    "d_simplex",
    "harmonic",
    "z_loss",
    "center",
    "sbcl",
    "hierarchical_contrastive",
    "nd",
]


def test_the_registry_has_every_promised_name() -> None:
    assert set(ISSUE) <= set(LOSSES)
    assert [line.split()[0] for line in list_losses()] == list(LOSSES)
    assert all(loss.paper and loss.when and loss.__doc__ for loss in LOSSES.values())


@pytest.mark.parametrize(
    "name", [name for name in NAMES if LOSSES[name].__module__ != "training.losses.pml_losses"]
)
def test_docstrings_have_one_form(name: str) -> None:
    headings = ("Formula", "Shapes", "Parameters", "Related losses", "Reference implementation")
    positions = [(LOSSES[name].__doc__ or "").find(f"{heading}:") for heading in headings]
    assert positions == sorted(positions)
    assert min(positions) > 0


def test_unknown_names_and_parameters_name_the_nearest() -> None:
    ten = TrainingClasses.build_placeholder(10)
    with pytest.raises(ConfigError, match="did you mean 'triplet'"):
        build_loss(NamedPart(name="tripplet"), classes=ten, embedding_dim=2)
    with pytest.raises(ConfigError, match="did you mean 'margin'"):
        build_loss(NamedPart(name="triplet", margn=1), classes=ten, embedding_dim=2)
    with pytest.raises(ConfigError, match="embedding_dim must be at least 9"):
        build_loss(NamedPart(name="d_simplex"), classes=ten, embedding_dim=4)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_library_loss_with_a_gradient(name: str) -> None:
    loss = make(name)
    value, gradient = compute_value_and_gradient(loss, *batch())
    assert isinstance(loss, BaseMetricLossFunction)
    assert value.ndim == 0
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STOPS_GRADIENT])
def test_gradients_are_those_of_the_value(name: str) -> None:
    loss = make(name)
    items, labels = batch(n=9, seed=4)

    def compute_value(items: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(3)
        return loss(items, labels)

    assert torch.autograd.gradcheck(compute_value, (items,), eps=1e-6, atol=1e-5, rtol=1e-4)


# the first item of each class is its query
@pytest.mark.parametrize("name", [name for name in NAMES if name != "angular_prototypical"])
def test_order_within_the_batch_does_not_matter(name: str) -> None:
    loss = make(name)
    items, labels = batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    value, gradient = compute_value_and_gradient(loss, items, labels)
    shuffled_value, shuffled_gradient = compute_value_and_gradient(loss, items[order], labels[order])
    torch.testing.assert_close(shuffled_value, value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(shuffled_gradient, gradient[order], rtol=1e-7, atol=1e-10)


CLASS_VECTORS = {
    name: keys[0]
    for name in NAMES
    if (
        keys := [
            key
            for key in ("W", "fc", "proxies", "weight", "fields", "centers")
            if hasattr(make(name), key) and "num_classes" in inspect.signature(LOSSES[name]).parameters
        ]
    )
}
"""Losses with one matrix of class vectors, and its name."""


DEGENERATE = {
    "identical": (torch.ones(8, DIMENSION), torch.arange(8) // 2),
    "orthogonal": (torch.eye(8, DIMENSION), torch.arange(8) // 2),
    "opposite": (torch.cat([torch.eye(2, DIMENSION), -torch.eye(2, DIMENSION)]), torch.tensor([0, 0, 1, 1])),
    "collinear, one class": (torch.ones(4, DIMENSION) * torch.arange(1, 5)[:, None], torch.zeros(4).long()),
    "one class": (torch.eye(8, DIMENSION), torch.zeros(8).long()),
    "no positives": (torch.eye(4, DIMENSION), torch.arange(4)),
    "one item": (torch.ones(1, DIMENSION), torch.zeros(1).long()),
    "two items": (torch.eye(2, DIMENSION), torch.tensor([0, 1])),
    "an item twice": (
        torch.randn(3, DIMENSION, generator=torch.Generator().manual_seed(0))[[0, 0, 1, 1, 2, 2]],
        torch.tensor([0, 0, 1, 1, 0, 2]),
    ),
    "a zero vector": (
        torch.eye(4, DIMENSION) * torch.tensor([0, 1, 1, 1])[:, None],
        torch.tensor([0, 0, 1, 1]),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", NAMES)
def test_degenerate_batches_stay_finite(name: str, case: str, dtype: torch.dtype) -> None:
    items, labels = DEGENERATE[case]
    value, gradient = compute_value_and_gradient(make(name).to(dtype), items.to(dtype), labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("length", [1.0, 0.37])
@pytest.mark.parametrize("name", sorted(set(CLASS_VECTORS) - {"sbcl"}))
def test_items_on_their_class_vectors_have_finite_gradients(name: str, length: float, sign: float) -> None:
    loss = make(name).float()
    vectors = getattr(loss, CLASS_VECTORS[name]).detach().clone()
    vectors = vectors if vectors.shape[1] == DIMENSION else vectors.T
    labels = torch.arange(len(vectors)) * CLASSES // len(vectors)  # sub-centres lie next to each other
    value, gradient = compute_value_and_gradient(loss, sign * length * vectors, labels)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    loss(sign * length * vectors, labels).backward()
    assert all(torch.isfinite(part.grad).all() for part in loss.parameters() if part.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_precisions_agree(name: str) -> None:
    items, labels = batch()
    items = items.detach()
    exact, exact_gradient = compute_value_and_gradient(make(name), items, labels)
    single, single_gradient = compute_value_and_gradient(make(name).float(), items.float(), labels)
    torch.testing.assert_close(single.double(), exact, rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(single_gradient.double(), exact_gradient, rtol=5e-3, atol=2e-5)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = compute_value_and_gradient(make(name).float(), items.float(), labels)
    torch.testing.assert_close(mixed, single, rtol=1e-6, atol=1e-7)  # computed in float32 all the same
    rounded, _ = compute_value_and_gradient(make(name).float(), items.bfloat16(), labels)
    same, _ = compute_value_and_gradient(make(name).float(), items.bfloat16().float(), labels)
    torch.testing.assert_close(rounded, same)


CODED = [name for name in NAMES if hasattr(make(name), "num_classes") or hasattr(make(name), "num_items")]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CODED])
def test_labels_are_compared_as_integers(name: str) -> None:
    loss = make(name)
    items, labels = batch()
    big = 2**24  # float32 cannot tell 2^24 and 2^24 + 1 apart
    value, gradient = compute_value_and_gradient(loss, items, labels)
    shifted, shifted_gradient = compute_value_and_gradient(loss, items, labels + big)
    torch.testing.assert_close(shifted, value)
    torch.testing.assert_close(shifted_gradient, gradient)


@pytest.mark.parametrize("name", [name for name in NAMES if LOSSES[name].takes_references])
def test_references_count(name: str) -> None:
    loss = make(name)
    items, labels = batch()
    references, ref_labels = batch(seed=9, n=11)
    value, gradient = compute_value_and_gradient(loss, items, labels, None, references, ref_labels)
    moved, _ = compute_value_and_gradient(loss, items, labels, None, references.roll(1, 0), ref_labels)
    assert torch.isfinite(value)
    assert gradient.abs().max() > 0
    assert moved != value


@pytest.mark.parametrize(
    "name", [name for name in NAMES if not LOSSES[name].takes_references and name not in WHOLE_BATCH]
)
def test_class_losses_refuse_what_they_cannot_use(name: str) -> None:
    items, labels = batch()
    with pytest.raises(ValueError, match="ref_emb"):
        make(name)(items, labels, None, items.clone(), labels)
    with pytest.raises(InputError, match=f"codes from 0 to {CLASSES - 1}"):
        make(name)(items, labels + 1)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WHOLE_BATCH])
def test_indices_restrict_or_weight(name: str) -> None:
    items, labels = batch()
    unmined, _ = compute_value_and_gradient(make(name), items, labels)
    single = torch.tensor([0]), torch.tensor([4]), torch.tensor([1])
    mined = torch.tensor([0, 0, 1]), torch.tensor([4, 8, 5]), torch.tensor([1, 2, 3])
    value, gradient = compute_value_and_gradient(make(name), items, labels, mined)
    assert torch.isfinite(gradient).all()
    assert value != unmined
    untouched = [6, 7, 9, 10, 11, 12, 13, 14]
    assert name in COMPARED_WITH_ALL or gradient[untouched].abs().max() == 0
    assert torch.isfinite(compute_value_and_gradient(make(name), items, labels, single)[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_of_nothing_or_the_wrong_way_round_is_refused(name: str) -> None:
    settings = list_settings(LOSSES[name])
    scales = [key for key in ("temperature", "scale", "alpha", "num_bins", "anneal", "a") if key in settings]
    if name not in ("amcl", "sbcl", "lmpt", "margin"):
        scales += [key for key in ("beta", "gamma") if key in settings]
    for key in scales:
        for value in (0, -1):
            with pytest.raises(ConfigError, match=rf"loss \({name}\): .*"):
                make(name, **{key: value})


@pytest.mark.parametrize("name", NAMES)
def test_what_a_miner_selects_counts_where_a_loss_says_so(name: str) -> None:
    items, labels = batch()
    mined = torch.tensor([0, 0, 1]), torch.tensor([4, 8, 5]), torch.tensor([1, 2, 3])
    whole, _ = compute_value_and_gradient(make(name), items, labels)
    selected, _ = compute_value_and_gradient(make(name), items, labels, mined)
    assert bool(whole != selected) == LOSSES[name].takes_indices


SAMPLERS = {
    "m_per_class": torch.arange(16) // 4,
    "shuffled": torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 4, 0, 1, 1, 4, 3, 2, 2]),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_feeds_every_loss(name: str, sampler: str) -> None:
    labels = SAMPLERS[sampler]
    items = torch.randn(16, DIMENSION, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    _, gradient = compute_value_and_gradient(make(name), torch.nn.functional.normalize(items), labels)
    assert gradient.abs().max() > 0
