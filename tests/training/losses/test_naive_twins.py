"""Every own loss against a loop, value and gradient; then what its parameters do."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tests.training.losses.cases import CLASSES, NAMES, batch, compute_value_and_gradient, make
from tests.training.losses.naive import TWINS, ge2e, lifted_structure
from training.losses import LOSSES, TrainingClasses
from training.losses.parts.kmeans import cluster_classes
from training.losses.pml_losses import PmlLoss


def test_every_own_loss_has_a_twin() -> None:
    assert set(TWINS) == {name for name in NAMES if not issubclass(LOSSES[name], PmlLoss)}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", sorted(TWINS))
def test_agrees_with_its_twin(name: str, seed: int) -> None:
    loss = make(name)
    items, labels = batch(seed=seed)
    value, gradient = compute_value_and_gradient(loss, items, labels)
    expected = TWINS[name](loss, items, labels)
    (expected_gradient,) = torch.autograd.grad(expected, items)
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5 if name == "icnn" else 1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4 if name == "icnn" else 1e-7, atol=1e-7)


FIXED = {"margin_plus": 0.9, "margin_minus": 0.5}


def test_margins_follow_the_run_s_own_quantiles() -> None:
    loss = make("threshold_consistent_margin", far=0.25, frr=0.4).train()
    upper, lower = 0.0, 0.0
    for step in range(30):
        items, labels = batch(seed=step)
        loss(items, labels)
        s = F.normalize(items.detach()) @ F.normalize(items.detach()).T
        same = labels[:, None] == labels
        positive = s[same & ~torch.eye(15, dtype=torch.bool)].sort().values
        negative = s[~same].sort().values
        high = float(positive[math.ceil(0.4 * len(positive)) - 1])
        low = float(negative[math.ceil(0.75 * len(negative)) - 1])
        upper = high if step == 0 else 0.95 * upper + 0.05 * high
        lower = low if step == 0 else 0.95 * lower + 0.05 * low
    figures = loss.collect_figures()
    assert figures == pytest.approx({"tcm_margin_plus": upper, "tcm_margin_minus": lower})
    loss(items, labels, None, items.detach(), labels)
    loss.eval()(items, labels)
    assert loss.collect_figures() == figures, "a memory and an evaluation move no margin"
    fixed = make("threshold_consistent_margin", margin_plus=upper, margin_minus=lower)
    torch.testing.assert_close(loss(items, labels), fixed(items, labels))
    assert fixed.collect_figures() == {}


def test_class_balanced_margin_gives_each_class_one_voice() -> None:
    items = F.normalize(torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2])
    s = items @ items.T
    means = []
    for c in range(3):
        near = [0.9 - s[i, j] for i in range(9) for j in range(9) if i != j and labels[i] == labels[j] == c]
        means.append(torch.stack([value for value in near if value >= 0]).mean())
    loss = make("threshold_consistent_margin", balance="classes", lambda_minus=0.0, **FIXED)
    torch.testing.assert_close(loss(items, labels), torch.stack(means).mean())


def test_a_tree_orders_pairs_by_their_distance_in_it() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    tree = ((0,), (0,), (1,), (1,))
    loss = make("hierarchical_contrastive", classes=TrainingClasses(tuple("abcd"), (2, 2, 2, 2), tree))

    def compute_at(angles: list[float]) -> torch.Tensor:
        radians = torch.deg2rad(torch.tensor(angles, dtype=torch.float64))
        return loss(torch.stack([radians.cos(), radians.sin()], 1), labels)

    right = compute_at([0, 2, 20, 22, 170, 172, 190, 192])  # groups {0, 1} and {2, 3} lie apart
    wrong = compute_at([0, 2, 170, 172, 20, 22, 190, 192])  # 0 lies with 2, 1 with 3
    assert right < wrong
    flat = make("hierarchical_contrastive", classes=4)
    assert flat.paths.shape == (4, 1)


def test_subclasses_part_a_large_class_of_two_shapes() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = torch.eye(3, 8, dtype=torch.float64)
    items = torch.cat([shapes[:2].repeat_interleave(20, 0), shapes[2:].repeat(20, 1)])
    items = F.normalize(items + 0.05 * torch.randn(items.shape, generator=generator, dtype=torch.float64))
    labels = torch.tensor([0] * 40 + [1] * 20)
    clusters = cluster_classes(items, labels, 20, 0.1)
    assert clusters.labels.tolist() == [0, 0, 1]
    known = TrainingClasses(("two shapes", "one"), (40, 20), ((), ()))
    loss = make("sbcl", classes=known, cluster_size=20, every=1).train()
    before = make("sbcl", classes=known, cluster_size=20)(items, labels)
    after = loss(items.requires_grad_(), labels)
    subclass, _ = loss.assign_subclasses(items, labels)
    assert len(set(subclass[:20].tolist())) == len(set(subclass[20:40].tolist())) == 1
    assert subclass[0] != subclass[20] != subclass[40]
    loss(items, labels, None, items.detach(), labels)
    assert int(loss.steps) == 1, "a batch that meets a memory is remembered once"
    assert after < before  # the two shapes of class 0 no longer have to meet at full strength
    copy = make("sbcl", classes=known, cluster_size=20, every=1)
    copy.load_state_dict(loss.state_dict())
    torch.testing.assert_close(copy(items, labels), loss.eval()(items, labels))


def test_batches_of_even_classes_do_not_hide_that_the_training_set_is_uneven() -> None:
    sizes = (100, 40, 3, 2, 1)  # 100:1, drawn in batches that hold as many of each
    generator = torch.Generator().manual_seed(3)
    known = TrainingClasses(("much", "some", "c", "d", "e"), sizes, ((),) * 5)
    loss = make("sbcl", classes=known, every=15).train()
    assert loss.describe_classes(known.names) == (
        "sbcl cuts 2 of 5 classes into subclasses of about 10 items, first after 15 steps: "
        "much into 10, some into 4."
    )
    labels = torch.arange(5).repeat_interleave(4)
    for step in range(30):
        loss(torch.randn(20, 8, generator=generator, dtype=torch.float64), labels)
        if step == 20:  # 60 items of each class were seen: there are 6 parts in them, not yet 10
            assert loss.collect_figures() == {"sbcl_cut_classes": 2.0, "sbcl_subclasses": 6 + 4 + 3}
    assert loss.collect_figures() == {"sbcl_cut_classes": 2.0, "sbcl_subclasses": 10 + 4 + 3}
    even = make("sbcl", classes=TrainingClasses(("a", "b"), (20, 15), ((), ())))
    assert "cuts none of 2 classes" in str(even.describe_classes(("a", "b")))


def test_each_class_is_remembered_in_proportion_by_its_newest_items() -> None:
    known = TrainingClasses(("a", "b", "c"), (12, 4, 1), ((),) * 3)
    loss = make("sbcl", classes=known, memory_size=8).train()
    vectors = F.normalize(torch.randn(20, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    labels = torch.tensor([0] * 14 + [1] * 3 + [2] * 3)
    for rows in (torch.arange(0, 20, 2), torch.arange(1, 20, 2)):
        loss(vectors[rows], labels[rows])
    kept = (loss.seen @ vectors.T).argmax(1)
    assert sorted(kept.tolist()) == [5, 7, 9, 11, 13, 15, 19]  # there is room for 5, 1 and 1


def test_wide_classes_get_a_higher_temperature() -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.tensor([0] * 40 + [1] * 30 + [2] * 20 + [3] * 10)
    width = torch.tensor([0.2, 0.4, 0.8, 0.6])[labels][:, None]
    means = F.normalize(torch.randn(4, 8, generator=generator))
    items = F.normalize(means[labels] + width * torch.randn(100, 8, generator=generator)).double()
    spreads = []
    for label in range(4):
        rows = items[labels == label]
        center = rows.mean(0)
        spreads.append(
            sum(float((row - center).norm()) for row in rows) / len(rows) / math.log(len(rows) + 10)
        )
    low, high = torch.tensor(spreads).quantile(0.2), torch.tensor(spreads).quantile(0.8)
    clipped = [min(max(spread, float(low)), float(high)) for spread in spreads]
    mean = sum(clipped) / 4
    clusters = cluster_classes(items, labels, 10, 0.1)
    assert clusters.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3]
    expected = [0.1 * clipped[label] / mean for label in clusters.labels.tolist()[:-1]]
    assert clusters.temperatures.tolist() == pytest.approx([*expected, 0.1])  # class 3 is one cluster


def test_lifted_structure_has_margins_and_a_scale() -> None:
    items, labels = batch()
    for inner, outer, scale in ((0.1, 0.8, 0.5), (0.0, 1.0, 1.0)):
        loss = make("lifted_structure", positive_margin=inner, negative_margin=outer, scale=scale)
        expected = lifted_structure(loss, items, labels, inner, outer, scale)
        torch.testing.assert_close(loss(items, labels), expected)


def test_nd_follows_a_teacher_in_direction_and_norm() -> None:
    loss = make("nd")
    student = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    teacher = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1])
    # the first is half as long as its teacher: 1 - 1/2; the second longer: it points the right way, 0
    torch.testing.assert_close(loss(student, labels, None, teacher, labels), torch.tensor(0.25))


def test_nt_xent_can_count_each_anchor_once() -> None:
    items, labels = batch()
    s = F.normalize(items.detach()) @ F.normalize(items.detach()).T / 0.07
    anchors = []
    for a in range(len(labels)):
        positive = [j for j in range(len(labels)) if j != a and labels[j] == labels[a]]
        rivals = sum(s[a, j].exp() for j in range(len(labels)) if labels[j] != labels[a])
        if positive:
            each = [-(s[a, p].exp() / (s[a, p].exp() + rivals)).log() for p in positive]
            anchors.append(torch.stack(each).mean())
    value = make("nt_xent", average="anchors")(items, labels)
    torch.testing.assert_close(value, torch.stack(anchors).mean())
    assert value != make("nt_xent")(items, labels)  # a class of one item fewer counts less there


def test_circle_has_one_formula_for_pairs_and_class_vectors() -> None:
    classes = make("circle_softmax", classes=3, margin=0.3, gamma=20.0)
    pairs = make("circle", margin=0.3, gamma=20.0)
    items = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor([0, 1, 2, 2, 1, 0])
    value = classes(items, labels)
    torch.testing.assert_close(value, pairs(items, labels, None, classes.class_vectors, torch.arange(3)))


def test_new_classes_come_by_their_mean() -> None:
    loss = make("normalized_softmax")
    support = torch.tensor([[3.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
    support = F.pad(support, (0, 6))
    loss.add_classes(support, torch.tensor([0, 0, 1]))
    diagonal = F.normalize(F.pad(torch.ones(1, 2, dtype=torch.float64), (0, 6)))
    assert loss.class_vectors.shape == (CLASSES + 2, 8)
    torch.testing.assert_close(loss.class_vectors[CLASSES:].detach(), diagonal.repeat(2, 1))
    assert torch.isfinite(loss(support, torch.tensor([CLASSES, CLASSES, CLASSES + 1])))


@pytest.mark.parametrize("name", ["proxy_nca", "proxy_anchor", "normalized_softmax", "center", "partial_fc"])
def test_class_vectors_can_start_from_class_means(name: str) -> None:
    from training.losses import start_from_class_means

    loss = make(name)
    before = loss.class_vectors.detach().clone()
    items, labels = batch()
    keep = labels != 2
    start_from_class_means(loss, items[keep], labels[keep])
    unit = F.normalize(items.detach())
    for code in (0, 1, 3, 4):
        torch.testing.assert_close(loss.class_vectors[code], F.normalize(unit[labels == code].mean(0), dim=0))
    torch.testing.assert_close(loss.class_vectors[2], before[2])


def test_partial_fc_leaves_unsampled_centres_where_they_are() -> None:
    loss = make("partial_fc", classes=50, sample_rate=0.2).train()
    labels = torch.tensor([3, 3, 7, 8])
    items = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        before = loss.centers.clone()
        state = torch.random.get_rng_state()
        rows, _ = loss.sample_classes(labels)
        torch.random.set_rng_state(state)
        loss(items.requires_grad_(), labels).backward()
        assert torch.equal(loss.centers, before)
        loss.end_step()
        moved = (loss.centers != before).any(1).nonzero()[:, 0]
        assert moved.tolist() == rows.tolist()
        assert len(rows) == 10
        assert {3, 7, 8} <= set(rows.tolist())
    still = loss.eval().centers.clone()
    loss(items, labels).backward()
    loss.end_step()
    torch.testing.assert_close(loss.centers, still)


def test_partial_fc_takes_one_step_for_a_batch_in_pieces() -> None:
    items, labels = batch()
    full, parts = (make("partial_fc", sample_rate=1.0).train() for _ in range(2))
    for _ in range(2):
        full(items, labels).backward()
        full.end_step()
        for rows in (slice(0, 5), slice(5, None)):
            fraction = len(labels[rows]) / len(labels)
            (parts(items[rows], labels[rows]) * fraction).backward()
        parts.end_step()
        torch.testing.assert_close(parts.centers, full.centers)
        torch.testing.assert_close(parts.velocity, full.velocity)


def test_partial_fc_with_all_classes_is_the_full_loss() -> None:
    items, labels = batch()
    partial = make("partial_fc", sample_rate=1.0, base="cosface", margin=0.35)
    full = make("cosface")
    with torch.no_grad():
        full.W.copy_(partial.centers.T)
    torch.testing.assert_close(partial(items, labels), full(items, labels))
    arc, arcface = make("partial_fc", sample_rate=1.0, margin=0.499164), make("arcface")
    with torch.no_grad():
        arcface.W.copy_(arc.centers.T)
    torch.testing.assert_close(arc(items, labels), arcface(items, labels), rtol=1e-6, atol=1e-6)


def test_partial_fc_ignores_suspiciously_near_negatives() -> None:
    loss = make("partial_fc", classes=3, dimension=2, sample_rate=1.0, base="none", filter_above=0.4)
    loss.centers.copy_(torch.tensor([[1.0, 0], [1.0, 0], [-1.0, 0]]))
    value = loss(torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    assert value < 1e-9  # the twin centre would make it log 2


def test_simplex_corners_are_evenly_apart() -> None:
    for dimension in (1, 4, 63):
        corners = LOSSES["d_simplex"](num_classes=2, embedding_dim=dimension).corners.double()
        cosine = corners @ corners.T
        expected = torch.full_like(cosine, -1 / dimension).fill_diagonal_(1)
        torch.testing.assert_close(cosine, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shots", [1, 2])
@pytest.mark.parametrize("name", ["proto_triplet", "icnn"])
def test_an_episode_compares_queries_with_their_support(name: str, shots: int) -> None:
    items, labels = batch(n=20)
    support = [i for i in range(20) if int((labels[:i] == labels[i]).sum()) < shots]
    queries = [i for i in range(20) if i not in support]
    apart = make(name)(items[queries], labels[queries], None, items[support], labels[support])
    together = make(name, shots=shots)(items, labels)
    torch.testing.assert_close(together, apart)
    (gradient,) = torch.autograd.grad(together, items)
    assert gradient[support].abs().max() > 0
    assert gradient[queries].abs().max() > 0
    assert make(name, shots=5)(items[:4], labels[:4]) == 0  # support alone: nothing to ask


def test_ge2e_contrasts_with_the_nearest_rival_alone() -> None:
    items, labels = batch()
    torch.testing.assert_close(
        make("ge2e", form="contrast")(items, labels), ge2e(make("ge2e"), items, labels, "contrast")
    )


@pytest.mark.parametrize("name", ["ge2e", "angular_prototypical"])
def test_learned_scales_stay_positive(name: str) -> None:
    loss = make(name, scale=0.5)
    items, labels = batch()
    labels = labels.roll(1)  # wrong labels want a negative scale
    optimizer = torch.optim.SGD(loss.parameters(), lr=5.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(items.detach(), labels).backward()
        optimizer.step()
    assert 0 < loss.log_scale.exp() < 0.5


def test_the_margin_of_nt_xent_am_rises_over_its_steps() -> None:
    items, labels = batch()
    loss = make("nt_xent_am", margin=0.2, ramp_steps=4, temperature=0.07)
    torch.testing.assert_close(loss(items, labels), make("nt_xent")(items, labels))
    margins = []
    for _ in range(6):
        margins.append(loss.compute_margin())
        loss.end_step()
    halfway = 0.2 * (0.5 - 0.5 * math.cos(math.pi / 4))
    assert margins == pytest.approx([0, halfway, 0.1, 0.2 - halfway, 0.2, 0.2])
    full = make("nt_xent_am", margin=0.2, temperature=0.07)
    torch.testing.assert_close(loss(items, labels), full(items, labels))
