"""Z-loss: factored class vectors move as dense ones would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.training.losses.cases import make
from training.losses import start_from_class_means, z_loss

CLASSES, DIMENSION, BATCH = 40, 8, 12


def compute_dense(items: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    outputs = F.normalize(items, dim=1) @ weight.T
    centred = outputs - outputs.mean(1, keepdim=True)
    z = centred.gather(1, labels[:, None])[:, 0] / (centred.square().mean(1) + 1e-12).sqrt()
    return F.softplus(-z).mean()


def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    items = torch.randn(BATCH, DIMENSION, generator=generator, dtype=torch.float64)
    return items, torch.randint(CLASSES, (BATCH,), generator=generator)


@pytest.mark.parametrize("condition", [1e4, 1.0])  # 1: multiplied out whenever it is looked at
def test_steps_are_those_of_sgd_on_dense_vectors(monkeypatch: pytest.MonkeyPatch, condition: float) -> None:
    monkeypatch.setattr(z_loss, "WORST_CONDITION", condition)
    monkeypatch.setattr(z_loss, "CHECK_EVERY", 7)
    generator = torch.Generator().manual_seed(1)
    loss = make("z_loss", classes=CLASSES, lr=0.7).train()
    dense = loss.weight.clone().requires_grad_()
    for _ in range(60):
        items, labels = draw(generator)
        ours, theirs = (items.clone().requires_grad_() for _ in range(2))
        for rows in (slice(0, 5), slice(5, None)):  # as gradients accumulate
            fraction = len(labels[rows]) / BATCH
            (fraction * loss(ours[rows], labels[rows])).backward()
        compute_dense(theirs, labels, dense).backward()
        torch.testing.assert_close(ours.grad, theirs.grad)
        loss.end_step(0.5)
        assert dense.grad is not None
        with torch.no_grad():
            dense -= 0.35 * dense.grad
        dense.grad = None
    assert (loss.mix - torch.eye(DIMENSION)).abs().max() > 0.01
    torch.testing.assert_close(loss.class_vectors, dense.detach())
    assert torch.equal(loss.mix, torch.eye(DIMENSION, dtype=torch.float64))


def test_a_step_touches_the_rows_of_its_batch_alone() -> None:
    loss = make("z_loss", classes=CLASSES).train()
    items, labels = draw(torch.Generator().manual_seed(2))
    before, vectors = loss.weight.clone(), loss._compute_vectors(torch.arange(CLASSES))
    loss(items, labels).backward()
    loss.end_step()
    touched = (loss.weight != before).any(1).nonzero()[:, 0]
    assert touched.tolist() == torch.unique(labels).tolist()
    assert (loss._compute_vectors(torch.arange(CLASSES)) != vectors).any(1).all(), "yet all vectors moved"


def test_sums_follow_vectors_that_are_set() -> None:
    loss = make("z_loss", classes=5)
    items, labels = draw(torch.Generator().manual_seed(3))
    labels = labels % 5
    start_from_class_means(loss, items, labels)
    torch.testing.assert_close(loss(items, labels), compute_dense(items, labels, loss.class_vectors))


def test_evaluation_and_steps_without_gradients_move_nothing() -> None:
    loss = make("z_loss", classes=CLASSES).train()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    items, labels = draw(torch.Generator().manual_seed(4))
    loss(items, labels)  # no backward pass
    loss.end_step()
    loss.eval()(items.requires_grad_(), labels).backward()
    loss.end_step()
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


def test_class_vectors_are_read_out_of_another_loss_s_state() -> None:
    loss = make("z_loss", classes=CLASSES).train()
    for seed in range(3):
        items, labels = draw(torch.Generator().manual_seed(seed))
        loss(items, labels).backward()
        loss.end_step()
    vectors = loss.read_class_vectors({name: value.clone() for name, value in loss.state_dict().items()})
    torch.testing.assert_close(vectors, loss.class_vectors.float())
    assert loss.read_class_vectors({}) is None
