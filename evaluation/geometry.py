"""Where the vectors lie on the sphere, apart from any threshold."""

from __future__ import annotations

import numpy as np

from api_schemas.report import Geometry
from evaluation.sweep import Sweep


def geometry(found: Sweep) -> Geometry:
    """Alignment and uniformity (Wang & Isola, arXiv 2005.10242, equations 3 and 6) and tolerance.

    Alignment: mean squared distance of genuine pairs. Uniformity: log of the mean of
    exp(-2 squared distance) over all pairs. Tolerance: mean similarity of genuine pairs
    (Wang & Liu, arXiv 2012.09740, section 4.3). Squared distance is 2 - 2 similarity.
    """
    similarities = found.genuine.similarities.astype(np.float64)
    n = len(similarities) + found.pairs.n_impostor
    uniformity = None
    if found.kernel_sum is not None:
        total = found.kernel_sum + float(np.exp(4 * similarities - 4).sum())
        uniformity = float(np.log(total / n))
    if not len(similarities):
        return Geometry(alignment=None, uniformity=uniformity, tolerance=None)
    tolerance = float(similarities.mean())
    return Geometry(alignment=2 - 2 * tolerance, uniformity=uniformity, tolerance=tolerance)
