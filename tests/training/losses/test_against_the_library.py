"""Agreement with pytorch-metric-learning where it is right; where it is wrong, a test of the difference."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses as library_losses
from pytorch_metric_learning import miners
from torch.nn import functional as F

from tests.training.losses.cases import CLASSES, DIMENSION, batch, compute_value_and_gradient, make
from training.losses.base import CosineSimilarity
from training.objective.cross_batch_memory import CrossBatchMemory

PAIRED = {
    "triplet": ("TripletMarginLoss", {}),
    "circle": ("CircleLoss", {}),
    "contrastive": ("ContrastiveLoss", {}),
    "multi_similarity": ("MultiSimilarityLoss", {}),
    "lifted_structure": ("GeneralizedLiftedStructureLoss", {}),
    "threshold_consistent_margin": ("ThresholdConsistentMarginLoss", {}),
    "sup_con": ("SupConLoss", {}),
    "nt_xent": ("NTXentLoss", {}),
}
OWN_DEFAULTS = {  # where ours are not the library's
    "lifted_structure": {"scale": 1.0},
    "threshold_consistent_margin": {"margin_plus": 0.9, "margin_minus": 0.5},
}
PROXIES = {
    "proxy_nca": ("ProxyNCALoss", {}),
    "proxy_nca_plus_plus": ("ProxyNCALoss", {"softmax_scale": 9}),
    "proxy_anchor": ("ProxyAnchorLoss", {}),
    "normalized_softmax": ("NormalizedSoftmaxLoss", {}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted(PAIRED))
def test_pair_losses_agree(name: str, seed: int) -> None:
    theirs, parameters = PAIRED[name]
    library = getattr(library_losses, theirs)(**parameters)
    items, labels = batch(seed=seed)
    loss = make(name, **OWN_DEFAULTS.get(name, {}))
    value, gradient = compute_value_and_gradient(loss, items, labels)
    expected, expected_gradient = compute_value_and_gradient(library, items, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-7, rtol=1e-5)
    mined = miners.MultiSimilarityMiner()(items, labels)
    torch.testing.assert_close(loss(items, labels, mined), library(items, labels, mined))


@pytest.mark.parametrize("name", sorted(PROXIES))
def test_proxy_losses_agree(name: str) -> None:
    theirs, parameters = PROXIES[name]
    library = getattr(library_losses, theirs)(CLASSES, DIMENSION, **parameters).double()
    loss = make(name)
    loss.class_vectors.data.copy_(library.W.T if hasattr(library, "W") else library.proxies)
    items, labels = batch()
    value, gradient = compute_value_and_gradient(loss, items, labels)
    expected, expected_gradient = compute_value_and_gradient(library, items, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_threshold_consistent_margin_uses_its_references() -> None:
    items, labels = F.normalize(torch.eye(2, 3)), torch.tensor([0, 1])
    references, ref_labels = torch.tensor([[0.8, 0.6, 0.0], [0.0, 0.6, 0.8]]), torch.tensor([0, 1])
    # positives: 0.8 and 0.6, hinges 0.1 and 0.3; negatives: 0 and 0.6, hinge 0.1
    ours = make("threshold_consistent_margin", margin_plus=0.9, margin_minus=0.5)(
        items, labels, None, references, ref_labels
    )
    assert float(ours) == pytest.approx(0.2 + 0.1)
    theirs = library_losses.ThresholdConsistentMarginLoss()(items, labels, None, references, ref_labels)
    assert float(theirs) != pytest.approx(0.3)


@pytest.mark.parametrize("name", ["multi_similarity", "contrastive", "circle"])
def test_a_single_pair_of_each_kind_counts(name: str) -> None:
    items, labels = torch.eye(3, dtype=torch.float64) + 0.5, torch.tensor([0, 0, 1])
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    assert make(name)(items, labels, triplet) > 0
    assert getattr(library_losses, PAIRED[name][0])()(items, labels, triplet) == 0


def test_two_views_of_a_batch_are_pairs_on_the_diagonal_too() -> None:
    items, labels = torch.eye(2, dtype=torch.float64), torch.tensor([0, 1])
    views = torch.tensor([[0.8, 0.6], [0.6, 0.8]], dtype=torch.float64)
    assert make("triplet")(items, labels, None, views, labels) == make("triplet")(
        items, labels, None, views, labels.clone()
    )
    tight = make("triplet", margin=1.0)(items, labels, None, views, labels)
    assert tight > 0
    assert library_losses.TripletMarginLoss(margin=1.0)(items, labels, None, views, labels) == 0


def test_proxy_nca_keeps_items_whose_probability_underflows() -> None:
    loss = make("proxy_nca", classes=2, dimension=2, scale=300.0).float()
    library = library_losses.ProxyNCALoss(2, 2, softmax_scale=300.0)
    loss.proxies.data = library.proxies.data = torch.eye(2)
    items, labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0])
    value, gradient = compute_value_and_gradient(loss, items, labels)
    assert float(value) == pytest.approx(300, rel=1e-5)
    assert gradient[0].abs().max() > 0
    expected, dropped = compute_value_and_gradient(library, items, labels)
    assert expected == 0
    assert dropped[0].abs().max() == 0


def test_items_that_a_miner_left_out_do_not_move_proxy_anchor() -> None:
    loss, library = make("proxy_anchor"), library_losses.ProxyAnchorLoss(CLASSES, DIMENSION).double()
    items, labels = batch()
    chosen = torch.tensor([0]), torch.tensor([4]), torch.tensor([1])
    _, gradient = compute_value_and_gradient(loss, items, labels, chosen)
    _, leaking = compute_value_and_gradient(library, items, labels, chosen)
    assert gradient[7].abs().max() == 0
    assert leaking[7].abs().max() > 0


def test_library_memory_is_empty_after_resume_ours_is_not() -> None:
    items, labels = batch()
    later, _ = batch(seed=5)
    ours = CrossBatchMemory(make("contrastive"), DIMENSION, size=64)
    theirs = library_losses.CrossBatchMemory(
        library_losses.ContrastiveLoss(), DIMENSION, memory_size=64
    ).double()
    for memory in (ours, theirs):
        memory(items, labels)
    again = CrossBatchMemory(make("contrastive"), DIMENSION, size=64)
    again.load_state_dict(ours.state_dict())
    torch.testing.assert_close(again(later, labels), ours(later, labels))
    resumed = library_losses.CrossBatchMemory(
        library_losses.ContrastiveLoss(), DIMENSION, memory_size=64
    ).double()
    resumed.load_state_dict(theirs.state_dict())
    assert not torch.isclose(resumed(later, labels), theirs(later, labels))


def test_library_distances_and_reducers_fit_own_losses() -> None:
    from pytorch_metric_learning.reducers import MeanReducer, SumReducer

    loss, items, labels = make("multi_similarity"), *batch()
    mean = loss(items, labels)
    loss.set_reducer(SumReducer())
    torch.testing.assert_close(loss(items, labels), mean * len(labels))
    loss.set_reducer(MeanReducer())
    torch.testing.assert_close(loss(items, labels), mean)
    assert isinstance(loss.distance, CosineSimilarity)
