"""A process that writes to a gallery on command, a line of JSON each: writer_process.py BUNDLE DATA"""

from __future__ import annotations

import json
import sys

import numpy as np

from index.gallery.live_gallery import LiveGallery, RebuildLimits
from index.items.stored_item import StoredItem


def main(bundle: str, data: str) -> None:
    """Answer each line of JSON with one line once it is done."""
    with LiveGallery.open(bundle, data, RebuildLimits(buffer_rows=5)) as live:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for line in sys.stdin:
            words = json.loads(line)
            if "upsert" in words:
                live.upsert(
                    [
                        StoredItem(name, label, np.array(vector, dtype=np.float32), {"place": len(name)})
                        for name, (label, vector) in words["upsert"].items()
                    ]
                )
            elif "delete" in words:
                live.delete(words["delete"])
            else:
                live.rebuild()
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
