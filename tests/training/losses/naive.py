"""Each loss as a loop that anyone can check by eye, from the formula of its docstring."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses import Loss


def _relu(value: Tensor) -> Tensor:
    return torch.clamp(value, min=0)


def _mean(values: list[Tensor], like: Tensor) -> Tensor:
    return torch.stack(values).mean() if values else like.sum() * 0


def _positive(values: list[Tensor], like: Tensor) -> Tensor:
    return _mean([value for value in values if value > 0], like)


def _cos(x: Tensor) -> Tensor:
    x = F.normalize(x)
    return x @ x.T


def _distances(x: Tensor) -> Tensor:
    return (2 - 2 * _cos(x)).clamp(min=1e-12).sqrt()


def _pairs(y: Tensor, a: int) -> tuple[list[int], list[int]]:
    positive = [j for j in range(len(y)) if j != a and y[j] == y[a]]
    return positive, [j for j in range(len(y)) if y[j] != y[a]]


def _others(y: Tensor, i: int, classes: int) -> list[int]:
    return [c for c in range(classes) if c != y[i]]


def triplet(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    d = _distances(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        terms += [_relu(d[a, p] - d[a, n] + 0.05) for p in positive for n in negative]
    return _positive(terms, x)


def contrastive(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    d = _distances(x)
    near = [d[a, p] for a in range(len(y)) for p in _pairs(y, a)[0]]
    far = [_relu(1 - d[a, n]) for a in range(len(y)) for n in _pairs(y, a)[1]]
    return _positive(near, x) + _positive(far, x)


def circle(loss: Any, x: Tensor, y: Tensor, m: float = 0.4, gamma: float = 80.0) -> Tensor:
    s = _cos(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        if not positive or not negative:
            continue
        pull = [-gamma * _relu(1 + m - s[a, p].detach()) * (s[a, p] - 1 + m) for p in positive]
        push = [gamma * _relu(s[a, n].detach() + m) * (s[a, n] - m) for n in negative]
        product = sum(p.exp() for p in pull) * sum(n.exp() for n in push)
        terms.append(torch.log(1 + product))
    return _positive(terms, x)


def circle_softmax(loss: Any, x: Tensor, y: Tensor, m: float = 0.25, gamma: float = 256.0) -> Tensor:
    s = F.normalize(x) @ F.normalize(loss.weight).T
    terms = []
    for i in range(len(y)):
        own = s[i, y[i]]
        pull = -gamma * _relu(1 + m - own.detach()) * (own - (1 - m))
        rivals = [s[i, c] for c in _others(y, i, len(loss.weight))]
        push = [gamma * _relu(s_c.detach() + m) * (s_c - m) for s_c in rivals]
        terms.append(torch.stack([torch.zeros_like(pull), *(each + pull for each in push)]).logsumexp(0))
    return _mean(terms, x)


def multi_similarity(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        pull = sum((torch.exp(-2 * (s[a, p] - 0.5)) for p in positive), x.new_zeros(()))
        push = sum((torch.exp(50 * (s[a, n] - 0.5)) for n in negative), x.new_zeros(()))
        terms.append(torch.log(1 + pull) / 2 + torch.log(1 + push) / 50)
    return _mean(terms, x)


def binomial_deviance(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        pull = [torch.log(1 + torch.exp(-2 * (s[a, p] - 0.5))) for p in positive]
        push = [torch.log(1 + torch.exp(50 * (s[a, n] - 0.5))) for n in negative]
        terms.append(_mean(pull, x) + _mean(push, x))
    return _mean(terms, x)


def lifted_structure(
    loss: Any, x: Tensor, y: Tensor, inner: float = 0.0, outer: float = 1.0, scale: float = 16.0
) -> Tensor:
    d = _distances(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        pull = sum(((scale * (d[a, p] - inner)).exp() for p in positive), x.new_zeros(()))
        push = sum(((scale * (outer - d[a, n])).exp() for n in negative), x.new_zeros(()))
        terms.append(_relu((pull.log() if positive else 0) + (push.log() if negative else 0)) / scale)
    return _mean(terms, x)


def threshold_consistent_margin(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    positives = [s[a, p] for a in range(len(y)) for p in _pairs(y, a)[0]]
    negatives = [s[a, n] for a in range(len(y)) for n in _pairs(y, a)[1]]
    upper = sorted(value.detach() for value in positives)[math.ceil(0.9 * len(positives)) - 1]
    lower = sorted(value.detach() for value in negatives)[math.ceil(0.9 * len(negatives)) - 1]
    near = [upper - value for value in positives if value <= upper]
    far = [value - lower for value in negatives if value >= lower]
    return _mean(near, x) + _mean(far, x)


def opis_variance(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    negatives = sorted(s[a, n].detach() for a in range(len(y)) for n in _pairs(y, a)[1])
    total = 0 * x.sum()
    for level in torch.logspace(-1, -2, 5).tolist():
        t = negatives[math.ceil((1 - level) * len(negatives)) - 1]
        rates: dict[str, list[Tensor]] = {"far": [], "frr": []}
        for c in sorted(set(y.tolist())):
            mine = [a for a in range(len(y)) if y[a] == c]
            accepted = [torch.sigmoid((s[a, n] - t) / 0.05) for a in mine for n in _pairs(y, a)[1]]
            rejected = [torch.sigmoid((t - s[a, p]) / 0.05) for a in mine for p in _pairs(y, a)[0]]
            rates["far"] += [torch.stack(accepted).mean()] if accepted else []
            rates["frr"] += [torch.stack(rejected).mean()] if rejected else []
        for of_classes in rates.values():
            values = torch.stack(of_classes)
            total = total + (values - values.mean().detach()).square().mean() / 5
    return total


def _softmax(logits: Tensor, y: Tensor) -> Tensor:
    terms = [-torch.log(logits[i].exp()[y[i]] / logits[i].exp().sum()) for i in range(len(y))]
    return _mean(terms, logits)


def _to_vectors(x: Tensor, vectors: Tensor) -> Tensor:
    return F.normalize(x) @ F.normalize(vectors).T


def proxy_nca(loss: Any, x: Tensor, y: Tensor, scale: float = 1.0) -> Tensor:
    squared = (F.normalize(x)[:, None] - F.normalize(loss.proxies)[None]).square().sum(2)
    return _softmax(-scale * squared, y)


def proxy_nca_plus_plus(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    return proxy_nca(loss, x, y, scale=9)


def proxy_anchor(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _to_vectors(x, loss.proxies)
    classes = range(len(loss.proxies))
    pull, push = [], []
    for c in classes:
        if mine := [torch.exp(-32 * (s[i, c] - 0.1)) for i in range(len(y)) if y[i] == c]:
            pull.append(torch.log(1 + torch.stack(mine).sum()))
        others = [torch.exp(32 * (s[i, c] + 0.1)) for i in range(len(y)) if y[i] != c]
        push.append(torch.log(1 + sum(others, x.new_zeros(()))))
    return _mean(pull, x) + _mean(push, x)


def soft_triple(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    centers = F.normalize(loss.fc.T).view(loss.classes, loss.centers, -1)
    total = x.new_zeros(())
    for i in range(len(y)):
        logits = []
        for c in range(loss.classes):
            s = centers[c] @ F.normalize(x[i], dim=0)
            logits.append(20 * ((torch.softmax(s / 0.1, 0) * s).sum() - 0.01 * int(y[i] == c)))
        total = total - torch.log_softmax(torch.stack(logits), 0)[y[i]] / len(y)
    k = loss.centers
    spread = sum(
        torch.sqrt(2 - 2 * centers[c, a] @ centers[c, b] + 1e-5)
        for c in range(loss.classes)
        for a in range(k)
        for b in range(a + 1, k)
    )
    return total + 0.2 * spread / (loss.classes * k * (k - 1))


def unpg(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s, z = _cos(x), _to_vectors(x, loss.weight)
    negative = [s[j, k] for j in range(len(y)) for k in range(j + 1, len(y)) if y[j] != y[k]]
    ordered = sorted(float(value.detach()) for value in negative)
    low, high = ordered[int(0.25 * len(ordered))], ordered[int(0.75 * len(ordered))]
    reach = 1.5 * (high - low)
    kept = [value for value in negative if low - reach <= value <= high + reach]
    terms = []
    for i in range(len(y)):
        row = [64 * (z[i, c] - 0.5 * int(c == y[i])) for c in range(z.shape[1])]
        below = sum(value.exp() for value in row) + sum((64 * value).exp() for value in kept)
        terms.append(-torch.log(row[y[i]].exp() / below))
    return _mean(terms, x)


def mean_field_contrastive(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    d = 1 - _to_vectors(x, loss.fields)
    terms = []
    for i in range(len(y)):
        others = _others(y, i, d.shape[1])
        terms.append(_relu(d[i, y[i]] - 0.02) + sum(_relu(0.3 - d[i, c]) for c in others))
    return _mean(terms, x)


def mean_field_class_wise_multi_similarity(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    d = 1 - _to_vectors(x, loss.fields)
    alpha, beta, delta, classes = 0.01, 80.0, 0.8, d.shape[1]
    zero = x.new_zeros(())

    def mean(c: int, column: int, factor: float) -> Tensor:
        rows = [torch.exp(factor * (d[i, column] + delta - 1)) for i in range(len(y)) if y[i] == c]
        return torch.stack(rows).mean() if rows else zero

    total = sum(torch.log(1 + mean(c, c, alpha)) for c in range(classes)) / alpha
    for c in range(classes):
        for other in range(classes):
            if other != c:
                both = mean(c, other, -beta) + mean(other, c, -beta)
                total = total + torch.log(1 + both) / (2 * beta)
    return total / len(set(y.tolist()))


def proto_triplet(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    x = F.normalize(x)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return torch.sqrt((a - b).square().sum() + 1e-6)

    terms = []
    for i in range(len(y)):
        positives, _ = _pairs(y, i)
        if positives:
            others = [x[y == c].mean(0) for c in set(y.tolist()) if c != y[i]]
            nearest = min(distance(x[i], center) for center in others)
            terms.append(_relu(distance(x[i], x[positives].mean(0)) - nearest + 0.5))
    return _mean(terms, x)


def icnn(loss: Any, x: Tensor, y: Tensor, k: int = 4, reach: int | None = None) -> Tensor:
    x = F.normalize(x) if loss is not None else x
    n, reach = len(y), reach or k + 1
    d = ((x[:, None] - x[None]).square().sum(2) + 1e-6).sqrt()
    same_terms, negatives, n_positives = [], [], 0
    for i in range(n):
        nearest = sorted((j for j in range(n) if j != i), key=lambda j: float(d[i, j].detach()))[:reach]
        different = [float("inf"), *[d[i, j] for j in nearest if y[j] != y[i]]]
        relative = [d[i, j] / min(different) for j in nearest[:k]]
        top = max(1.0, max(float(value.detach()) for value in relative))
        top = next((value for value in relative if float(value.detach()) == top), 1.0)
        positives = [relative[r] / top for r in range(k) if y[nearest[r]] == y[i]]
        n_positives += len(positives)
        same_terms += [torch.stack(positives).mean()] if positives else []
        negatives += [[d[i, j] for j in nearest[:k] if y[j] != y[i]]]
    flat = [value for row in negatives for value in row]
    same = 1 - (torch.stack(same_terms).mean() if same_terms else 0)
    rows = [torch.stack(row).mean() / max(flat) for row in negatives if row]
    diff = torch.stack(rows).mean() if rows else 1.0
    fraction = n_positives / k / n if k + 2 < n else 1.0
    return -torch.log(torch.as_tensor(((same + diff) / 2 + fraction) / 2))


def sface(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _to_vectors(x, loss.weight)
    total = x.new_zeros(())
    for i in range(len(y)):
        for c in range(s.shape[1]):
            angle = torch.acos(s[i, c].detach().clamp(-1, 1))
            if c == y[i]:
                total = total - 64 * s[i, c] / (1 + torch.exp(-80 * (angle - 0.87)))
            else:
                total = total + 64 * s[i, c] / (1 + torch.exp(80 * (angle - 1.2)))
    return total / len(y)


def normalized_softmax(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    return _softmax(_to_vectors(x, loss.weight) / 0.05, y)


def partial_fc(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    present = sorted(set(y.tolist()))  # a tenth of five classes: those of the batch alone
    s = _to_vectors(x, loss.centers)
    terms = []
    for i in range(len(y)):
        row = [s[i, c] if c != y[i] else torch.cos(torch.acos(s[i, c]) + 0.5) for c in present]
        if s[i, y[i]] <= -math.cos(0.5):
            row[present.index(int(y[i]))] = s[i, y[i]] - 0.5 * math.sin(0.5)
        logits = 64 * torch.stack(row)
        terms.append(-torch.log_softmax(logits, 0)[present.index(int(y[i]))])
    return _mean(terms, x)


def d_simplex(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    return _softmax(10 * _to_vectors(x, loss.corners), y)


def harmonic(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    terms = []
    for i in range(len(y)):
        squared = (F.normalize(x[i], dim=0) - loss.centers).square().sum(1) + 1e-4
        p = squared ** (-math.sqrt(x.shape[1]) / 2)
        terms.append(-torch.log(p[y[i]] / p.sum()))
    return _mean(terms, x)


def z_loss(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    terms = []
    for i in range(len(y)):
        o = loss.weight @ F.normalize(x[i], dim=0)
        z = (o[y[i]] - o.mean()) / o.std(unbiased=False)
        terms.append(torch.log(1 + torch.exp(-z)))
    return _mean(terms, x)


def center(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    return _mean([(F.normalize(x[i], dim=0) - loss.centers[y[i]]).square().sum() for i in range(len(y))], x)


def ge2e(loss: Any, x: Tensor, y: Tensor, form: str = "softmax") -> Tensor:
    u, classes = F.normalize(x), sorted(set(y.tolist()))
    terms = []
    for i in range(len(y)):
        if not _pairs(y, i)[0]:
            continue
        s = {}
        for k in classes:
            members = [j for j in range(len(y)) if y[j] == k and j != i]
            s[k] = loss.log_scale.exp() * F.normalize(u[members].mean(0), dim=0) @ u[i] - 5
        own = s.pop(int(y[i]))
        if form == "softmax":
            terms.append(-torch.log(own.exp() / (own.exp() + sum(value.exp() for value in s.values()))))
        else:
            terms.append(1 - own.sigmoid() + max(value.sigmoid() for value in s.values()))
    return _mean(terms, x)


def angular_prototypical(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    members = {k: [i for i in range(len(y)) if y[i] == k] for k in sorted(set(y.tolist()))}
    members = {k: rows for k, rows in members.items() if len(rows) > 1}
    terms = []
    for j, (query, *_) in members.items():
        s = {
            k: loss.log_scale.exp() * F.cosine_similarity(x[query], x[rows[1:]].mean(0), dim=0) - 5
            for k, rows in members.items()
        }
        terms.append(-torch.log(s[j].exp() / sum(value.exp() for value in s.values())))
    return _mean(terms, x)


def nt_xent_am(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum(torch.exp(s[a, n] / 0.03) for n in negative)
        for p in positive:
            own = torch.exp((s[a, p] - 0.1) / 0.03)
            terms.append(-torch.log(own / (own + rivals)))
    return _mean(terms, x)


def ckd(loss: Any, x: Tensor, y: Tensor, teacher: Tensor | None = None) -> Tensor:
    s, t = F.normalize(x), F.normalize(x.detach() if teacher is None else teacher)
    terms = []
    for i in range(len(y)):
        near = [torch.exp(loss.log_scale.exp() * (s[i] @ t[j])) for j in range(len(y))]
        terms.append(-torch.log(near[i] / sum(near)))
    return _mean(terms, x)


def higher_order_compatibility(loss: Any, x: Tensor, y: Tensor, teacher: Tensor | None = None) -> Tensor:
    new, old = F.normalize(x), F.normalize(x.detach() if teacher is None else teacher)
    terms = []
    for i in range(len(y)):
        own = torch.exp(10 * (old[i] @ new[i]))
        others = [torch.exp(10 * (old[i] @ new[j])) for j in _pairs(y, i)[1]]
        terms.append(-torch.log(own / (own + sum(others))))
    return _mean(terms, x)


def backward_compatible(loss: Any, x: Tensor, y: Tensor, teacher: Tensor | None = None) -> Tensor:
    new, old = F.normalize(x), F.normalize(x.detach() if teacher is None else teacher)
    means = {int(c): F.normalize(old[y == c].mean(0), dim=0) for c in set(y.tolist())}
    terms = []
    for i in range(len(y)):
        near = {c: torch.exp(20 * (new[i] @ mean)) for c, mean in means.items()}
        terms.append(-torch.log(near[int(y[i])] / sum(near.values())))
    return _mean(terms, x)


def prototype_relation(
    loss: Any, x: Tensor, y: Tensor, teacher: Tensor | None = None, over: str = "items"
) -> Tensor:
    new, old = F.normalize(x), F.normalize(x.detach() if teacher is None else teacher)
    p = F.normalize(loss.prototypes)
    classes = sorted({int(c) for c in y.tolist() if c >= 0})
    given = [[old[i] @ F.normalize(old[y == c].mean(0), dim=0) / 0.1 for c in classes] for i in range(len(y))]
    learned = [[new[i] @ p[c] / 0.1 for c in classes] for i in range(len(y))]
    rows = list(zip(given, learned, strict=True))
    if over == "items":
        rows = list(zip(zip(*given, strict=True), zip(*learned, strict=True), strict=True))  # type: ignore[arg-type]
    terms = []
    for t, s in rows:
        total_t, total_s = sum(value.exp() for value in t), sum(value.exp() for value in s)
        terms.append(
            sum(
                (a.exp() / total_t) * torch.log((a.exp() / total_t) / (b.exp() / total_s))
                for a, b in zip(t, s, strict=True)
            )
        )
    pulls = [1 - new[i].detach() @ p[y[i]] for i in range(len(y)) if y[i] >= 0]
    return _mean(terms, x) + 2 * _mean(pulls, x)


def margin_mse(loss: Any, x: Tensor, y: Tensor, teacher: Tensor | None = None) -> Tensor:
    s = _cos(x)
    t = (y[:, None] == y).to(x) if teacher is None else _cos(teacher)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        errors = [((s[a, p] - s[a, n]) - (t[a, p] - t[a, n])) ** 2 for p in positive for n in negative]
        terms += [_mean(errors, x)] if errors else []
    return _mean(terms, x)


def sup_con(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x) / 0.1
    terms = []
    for i in range(len(y)):
        positive, negative = _pairs(y, i)
        total = sum((s[i, j].exp() for j in positive + negative), x.new_zeros(()))
        if positive:
            terms.append(-_mean([torch.log(s[i, p].exp() / total) for p in positive], x))
    return _mean(terms, x)


def nt_xent(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x) / 0.07
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum((s[a, n].exp() for n in negative), x.new_zeros(()))
        terms += [-torch.log(s[a, p].exp() / (s[a, p].exp() + rivals)) for p in positive]
    return _mean(terms, x)


def sbcl(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    return sup_con(loss, x, y) * sum(len(_pairs(y, i)[0]) > 0 for i in range(len(y))) / len(y)


def hierarchical_contrastive(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = (_cos(x) + 1) / 2
    close = [s[i, j] for i in range(len(y)) for j in _pairs(y, i)[0]]
    far = [s[i, j] for i in range(len(y)) for j in _pairs(y, i)[1]]
    below = sum(torch.exp(32 * f) for f in far)
    above = sum(torch.exp(-32 * c) for c in close)
    pull = [-torch.log(torch.exp(32 * c) / (torch.exp(32 * c) + below)) for c in close]
    push = [-torch.log(torch.exp(-32 * f) / (torch.exp(-32 * f) + above)) for f in far]
    return _mean(pull, x) + _mean(push, x)


def nd(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    unit = F.normalize(x)
    means = {int(c): F.normalize(unit[y == c].mean(0), dim=0).detach() for c in set(y.tolist())}
    return _mean([1 - unit[i] @ means[int(y[i])] for i in range(len(y))], x)


def siglip(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s, scale, offset = _cos(x), loss.log_scale.exp(), loss.offset
    rows = []
    for i in range(len(y)):
        signs = [(1 if y[j] == y[i] else -1, j) for j in range(len(y)) if j != i]
        rows.append(sum(-torch.log(torch.sigmoid(sign * (scale * s[i, j] + offset))) for sign, j in signs))
    return _mean(rows, x)


def decoupled_softmax(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x) / 0.05
    rows = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum(s[a, n].exp() for n in negative)
        if positive:
            rows.append(_mean([-torch.log(s[a, p].exp() / (s[a, p].exp() + rivals)) for p in positive], x))
    return _mean(rows, x)


def soft_top_k(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    """The threshold by Newton's steps from a bracket; its slope by the implicit function."""
    s = 2 * _cos(x) / 0.05
    rows = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        if not positive:
            continue
        row = s[a, positive + negative]
        low, high = -float(row.detach().max()) - 50, -float(row.detach().min()) + 50
        for _ in range(200):
            middle = (low + high) / 2
            if float(torch.sigmoid(row.detach() + middle).sum()) < len(positive):
                low = middle
            else:
                high = middle
        v = torch.sigmoid(row.detach() + low)
        u = v * (1 - v)
        threshold = low - sum(u[j] / u.sum() * (row[j] - row[j].detach()) for j in range(len(row)))
        rows.append(_mean([-torch.log(torch.sigmoid(s[a, p] + threshold)) for p in positive], x))
    return _mean(rows, x)


def ccl(loss: Any, x: Tensor, y: Tensor, m: float = 0.5, w: float = 10.0) -> Tensor:
    s = _cos(x)
    rows = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        if positive:
            near = _mean([_relu(1 - s[a, p]) for p in positive], x)
            rows.append(near + w * _mean([_relu(s[a, n] - m) for n in negative], x))
    return _mean(rows, x)


def arm(loss: Any, x: Tensor, y: Tensor, form: str = "distributed") -> Tensor:
    s = _cos(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        for p in positive:
            for n in negative:
                beside = [p] if form == "adaptive" else [q for q in range(len(y)) if y[q] != y[n]]
                terms.append(_mean([(s[a, p] - s[a, n] - (1 + s[q, n]) / 2) ** 2 for q in beside], x))
    return _mean(terms, x)


def clp(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    rows = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        if not positive:
            continue
        hard = sorted(negative, key=lambda n: -float(s[a, n].detach()))[:4]
        rivals = sum(torch.exp(s[a, n] / 0.02) for n in hard)
        own = [torch.exp(s[a, p] / 0.02) for p in positive]
        contrast = _mean([-torch.log(value / (value + rivals)) for value in own], x)
        pulls = [1 - _mean([s[n, q] for q in _pairs(y, n)[0]], x) for n in hard if _pairs(y, n)[0]]
        rows.append(0.9 * contrast + 0.1 * _mean(pulls, x))
    return _mean(rows, x)


def uncertainty(loss: Any, x: Tensor, y: Tensor, noise: tuple[Tensor, Tensor] | None = None) -> Tensor:
    x = F.normalize(x)
    targets = []
    for i in range(len(y)):
        mean = x[i].mean()
        wide = ((x[i] - mean).square().mean() + 1e-5).sqrt()
        factor, shift = torch.ones_like(x[i]), mean.expand_as(x[i])
        if noise is not None:
            deviation = x[i].detach().std()
            factor = factor + deviation * noise[0][i]
            shift = (mean + deviation * noise[1][i]).detach()
        targets.append(factor * (x[i] - mean) / wide + shift)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum(torch.exp(x[a] @ targets[n]) for n in negative)
        for p in positive:
            own = torch.exp(x[a] @ targets[p])
            terms.append(-torch.log(own / (own + rivals)))
    spread = torch.stack(targets).std()
    return (torch.exp(-spread) * _mean(terms, x) + spread) / 2


def isogclr(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    rows = []
    for i in range(len(y)):
        positive, negative = _pairs(y, i)
        if not positive:
            continue
        own = _mean([s[i, p] for p in positive], x)
        apart = [s[i, n] - own for n in negative]
        exps = [torch.exp(value.detach() / loss.temperatures[y[i]]) for value in apart]
        mean = sum(exps) / len(exps)
        rows.append(_mean([e / mean * value for e, value in zip(exps, apart, strict=True)], x))
    return _mean(rows, x)


def groco(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    unit = F.normalize(x)
    rows = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        if not positive:
            continue
        s = [unit[a] @ unit[j].detach() for j in range(len(y))]
        hard = sorted(negative, key=lambda n: float(s[n].detach()))[-10:]
        near = sorted(positive, key=lambda p: float(s[p].detach()))
        entries = [s[j] for j in hard + near]
        k, n = len(entries), len(hard)
        share = [[x.new_tensor(float(r == c)) for c in range(k)] for r in range(k)]
        for layer in range(k):
            for left in range(layer % 2, k - 1, 2):
                low, high = entries[left], entries[left + 1]
                stays = 0.5 + torch.atan(high - low) / math.pi
                entries[left], entries[left + 1] = (
                    stays * low + (1 - stays) * high,
                    stays * high + (1 - stays) * low,
                )
                first, second = share[left], share[left + 1]
                share[left] = [stays * f + (1 - stays) * g for f, g in zip(first, second, strict=True)]
                share[left + 1] = [stays * g + (1 - stays) * f for f, g in zip(first, second, strict=True)]
        terms = []
        for r in range(k):
            of_positives, of_negatives = sum(share[r][n:]), sum(share[r][:n])
            right = of_positives if r >= n else 1 - of_positives
            other = of_negatives if r < n else 1 - of_negatives
            terms.append(-(torch.log(right) + torch.log(other)) / 2)
        rows.append(_mean(terms, x))
    return _mean(rows, x)


def interclr(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    """Before the first clustering: the views alone, at three quarters."""
    s = _cos(x) / 0.2
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum(s[a, n].exp() for n in negative)
        terms += [-torch.log(s[a, p].exp() / (s[a, p].exp() + rivals)) for p in positive]
    return 0.75 * _mean(terms, x)


def isr(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x) / 0.1
    chance = {}
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        rivals = sum(s[a, n].exp() for n in negative)
        chance |= {(a, p): s[a, p].exp() / (s[a, p].exp() + rivals) for p in positive}
    weights = {(a, p): (value * chance[p, a]).detach() for (a, p), value in chance.items()}
    total = sum(weights.values())
    return sum((weights[pair] / total * -torch.log(chance[pair]) for pair in chance), 0 * x.sum())


def pamc(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    s = _cos(x)
    classes = sorted(set(y.tolist()))
    blocks = [F.normalize(F.normalize(x)[y == c].sum(0), dim=0) for c in classes]
    near = [
        torch.stack([s[i, p].exp() for p in _pairs(y, i)[0]]).mean() for i in range(len(y)) if _pairs(y, i)[0]
    ]
    far = [torch.log(torch.stack([torch.exp(a @ b) for b in blocks if b is not a]).mean()) for a in blocks]
    return _mean(far, x) - _mean([torch.log(value) for value in near], x)


def amcl(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    def compute_temperature(a: Tensor, b: Tensor) -> Tensor:
        return 0.05 + 1.95 / (1 + torch.exp(loss.trust(a) @ loss.trust(b)))

    rows = []
    for i in range(len(y)):
        positive, negative = _pairs(y, i)
        if not positive:
            continue
        total = 0 * x.sum()
        for project in loss.projections:
            z = F.normalize(project(x), dim=1)
            warm = [(z[i] @ z[p], compute_temperature(z[i], z[p])) for p in positive]
            cold = [(z[i] @ z[n], compute_temperature(z[i], z[n])) for n in negative]
            cold = sorted(cold, key=lambda pair: -float(pair[0].detach()))[
                : max(1, int(loss.nearest * len(cold)))
            ]
            charge = [-s / t + loss.beta * (x.shape[1] / 2 * torch.log(t) + 1 / t) for s, t in warm]
            relief = torch.stack([torch.log(t) + 1 / t for _, t in cold]).sum()
            total = total + _mean(charge, x) + _mean([s / t for s, t in cold], x) - loss.beta * relief
        rows.append(total)
    return _mean(rows, x)


def neural_collapse(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    unit, m = F.normalize(x), loss.means
    spread = [
        torch.stack([(unit[i] - m[c]).square().sum() for i in range(len(y)) if y[i] == c]).mean()
        for c in sorted(set(y.tolist()))
    ]
    centre = m.mean(0)
    angles = []
    for c in range(len(m)):
        others = [F.cosine_similarity(m[c] - centre, m[d] - centre, dim=0) for d in range(len(m)) if d != c]
        angles.append(torch.acos(torch.stack(others).max()))
    return 0.01 * _mean(spread, x) - 0.1 * _mean(angles, x)


def lmpt(loss: Any, x: Tensor, y: Tensor, sizes: tuple[int, ...] = (1, 1, 1, 1, 1)) -> Tensor:
    s = _to_vectors(x, loss.proxies)
    total = sum(n**-0.5 for n in sizes)
    rows = []
    for i in range(len(y)):
        terms = []
        for c, n in enumerate(sizes):
            distance = 1 - s[i, c]
            hinge = distance if c == y[i] else _relu(n**-0.25 - distance)
            terms.append(len(sizes) * n**-0.5 / total * hinge)
        rows.append(sum(terms))
    return _mean(rows, x)


def rank_mixup(loss: Any, x: Tensor, y: Tensor) -> Tensor:
    x = F.normalize(x)
    terms = []
    for a in range(len(y)):
        positive, negative = _pairs(y, a)
        n = max(negative, key=lambda j: float((x[a] @ x[j]).detach()))
        for p in positive:
            mixed = [F.normalize(r * x[p] + (1 - r) * x[n], dim=0) for r in (1.0, 0.75, 0.5)]
            scores = [x[a] @ v for v in mixed]
            terms.append(sum(_relu(scores[k + 1] - scores[k] + 0.2 * 0.25) for k in range(2)))
    return _mean(terms, x)


TWINS: dict[str, Callable[[Loss, Tensor, Tensor], Tensor]] = {
    name: twin
    for name, twin in list(globals().items())
    if callable(twin) and getattr(twin, "__module__", "") == __name__ and not name.startswith("_")
}
