"""Plain lists are evaluated as arrays are."""

import numpy as np

import limen

rows = np.random.default_rng(0).normal(size=(40, 4))
labels = [f"class {row % 8}" for row in range(40)]
reports = [limen.evaluate(rows.tolist(), labels), limen.evaluate(rows, np.array(labels))]
first, second = (report.model_dump(exclude={"created_at"}) for report in reports)
assert first == second
