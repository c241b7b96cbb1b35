"""HTTP: decisions, reports and the dashboard."""

import os
from importlib.metadata import version

# read when pyarrow is imported: its own allocator reserves a GiB of addresses, which a process whose address
# space is limited needs for requests
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
VERSION = version("limen")
