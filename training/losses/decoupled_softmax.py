"""Decoupled softmax of DEXML."""

from __future__ import annotations

from training.losses.nt_xent import NTXent


class DecoupledSoftmax(NTXent):
    """Each positive competes with the anchor's negatives alone; every anchor counts once.

    Formula: ``mean_a 1/|P(a)| sum_{p in P(a)} -log(e^{s_ap / t} / (e^{s_ap / t} + sum_n e^{s_an / t}))`` over
    the anchors that have a positive, t the temperature.

    Shapes: embeddings [n, d], labels [n], references [m, d].

    Parameters:
        temperature: 0.05, the authors' for embeddings of unit length.

    Related losses: nt_xent is the same with a mean over pairs; sup_con, where positives compete with each
        other; soft_top_k, which asks for a place among the first k.

    Reference implementation: the negatives are all labels of the data set or a pool of them; here those of
    the batch, and of the memory where there is one.
    """

    name = "decoupled_softmax"
    paper = "Gupta et al., Dual-Encoders for Extreme Multi-Label Classification, ICLR 2024, arXiv 2310.10636"
    when = "Several right answers to a query, of which none should push another away."

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__(temperature, average="anchors")
