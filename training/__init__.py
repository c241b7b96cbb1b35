"""Networks from data to an exported encoder; the only room that imports torch."""

import os

# OpenMP threads that spin while they wait cost a step ten times its time as soon as another process
# needs a core; libgomp reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
