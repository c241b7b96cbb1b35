"""Write the Grocery Store photos in the form that ``limen train`` reads.

    python scripts/grocery_store.py [OUT]

From the data sets' folder (LIMEN_DATASETS): the photos, and ``photos.csv`` with path, label and split.
Products 41 to 80 are the test, never trained on; of the other 41 every fourth one validates.
"""

from __future__ import annotations

import csv
import os
import sys
import zipfile
from pathlib import Path

UNSEEN = 41  # fine labels from here on are the test
EVERY = 4


def main(out: Path) -> None:
    """Write photos and list below ``out``."""
    source = Path(os.environ.get("LIMEN_DATASETS", "../shared/data")) / "grocery_store"
    out.mkdir(parents=True, exist_ok=True)
    with (source / "classes.csv").open(newline="") as file:
        names = {int(row["Class ID (int)"]): row["Class Name (str)"] for row in csv.DictReader(file)}
    rows = []
    with zipfile.ZipFile(source / "images_88px.zip") as archive:
        for part in ("train", "val", "test"):
            for line in (source / f"{part}.txt").read_text().splitlines():
                path, fine, _ = (field.strip() for field in line.split(","))
                archive.extract(path, out)
                rows.append([path, names[int(fine)], select_split(int(fine))])
    with (out / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    print(f"{out / 'photos.csv'}: {len(rows)} photos of {len(names)} products")


def select_split(fine: int) -> str:
    """The part of a product."""
    if fine >= UNSEEN:
        return "test"
    return "validation" if fine % EVERY == EVERY - 1 else "train"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs/grocery"))
