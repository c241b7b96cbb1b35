"""Tensors and Series are evaluated as arrays are."""

import numpy as np
import pandas as pd
import torch

import limen

rows = np.random.default_rng(0).integers(-8, 9, size=(40, 4)).astype(np.float32) + 0.5
labels = [f"class {row % 8}" for row in range(40)]
expected = limen.evaluate(rows, labels).model_dump(exclude={"created_at"})
tensor = torch.tensor(rows)
for form in (tensor.clone().requires_grad_(), tensor.bfloat16(), tensor.to_sparse(), list(tensor)):
    report = limen.evaluate(form, pd.Categorical(labels))
    assert report.model_dump(exclude={"created_at"}) == expected
