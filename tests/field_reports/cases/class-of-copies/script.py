"""One photo of a person was stored six times, among people with six photos each."""

import sys

import numpy as np
import pytest

from limen.cli.main import main

rng = np.random.default_rng(0)
vectors = (rng.normal(size=(12, 1, 16)) + 0.4 * rng.normal(size=(12, 6, 16))).reshape(-1, 16)
vectors[:6] = vectors[0]
np.savez("faces.npz", embeddings=vectors, labels=np.repeat([f"person {n}" for n in range(12)], 6))
sys.argv = ["limen", "build", "faces.npz", "--out", "bundle"]
with pytest.raises(SystemExit) as stopped:
    main()
assert not stopped.value.code
