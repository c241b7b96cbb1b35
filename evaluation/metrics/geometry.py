"""How the vectors lie on the sphere, apart from any threshold."""

from __future__ import annotations

import numpy as np

from api_schemas.report import Geometry
from evaluation.pairs.sweep import Sweep


def measure_geometry(sweep: Sweep) -> Geometry:
    """Alignment and uniformity (Wang & Isola, arXiv 2005.10242, equations 3 and 6) and tolerance.

    Alignment: mean squared distance of genuine pairs. Uniformity: log of the mean of
    exp(-2 squared distance) over all pairs. Tolerance: mean similarity of genuine pairs
    (Wang & Liu, arXiv 2012.09740, section 4.3). Squared distance is 2 - 2 similarity.
    """
    pairs = sweep.pairs
    total, kernels = 0.0, sweep.kernel_sum
    for part in pairs.iterate_genuine():
        similarities = part.similarities.astype(np.float64)
        total += float(similarities.sum())
        if kernels is not None:
            kernels += float(np.exp(4 * similarities - 4).sum())
    uniformity = None if kernels is None else float(np.log(kernels / (pairs.n_genuine + pairs.n_impostor)))
    if not pairs.n_genuine:
        return Geometry(alignment=None, uniformity=uniformity, tolerance=None)
    tolerance = total / pairs.n_genuine
    return Geometry(alignment=2 - 2 * tolerance, uniformity=uniformity, tolerance=tolerance)
