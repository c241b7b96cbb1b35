"""Class evidence: covariances and weights fitted, cross-fitted, chosen, and scored in trials."""
