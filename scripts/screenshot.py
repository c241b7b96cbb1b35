"""Take the pictures of the README and of docs/dashboard.md: every page, after a morning of queries.

limen demo --out demo --no-serve && python -m scripts.screenshot demo/bundle docs/pictures [PAGE ...]
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from limen.client import Client
from tests.service.bundles import serve
from training.data.glyphs import draw_glyphs

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]
WIDTH, HEIGHT = 1240, 860
KNOWN, UNKNOWN = 160, 60  # queries of the morning
AT_ONCE = 20
# file, path, colour scheme; pages whose name begins with "dashboard" are shown whole
PICTURES = [
    ("dashboard-light", "/dashboard", "light"),
    ("dashboard-dark", "/dashboard", "dark"),
    ("page-threshold", "/dashboard/threshold", "light"),
    ("page-classes", "/dashboard/classes", "light"),
    ("page-try", "/dashboard/try", "light"),
    ("page-live", "/dashboard/live", "light"),
    ("page-unknowns", "/dashboard/unknowns", "light"),
    ("page-review", "/dashboard/review", "light"),
    ("page-models", "/dashboard/models", "light"),
    ("page-reports", "/dashboard/reports?source=gallery", "light"),
    ("page-labels", "/dashboard/labels", "light"),
]


def fill_a_morning(client: Client) -> None:
    """Ask about pictures of characters that the gallery has and of others, and let the service look."""
    pixels, labels, _ = draw_glyphs()
    rng = np.random.default_rng(0)
    held = {item.label for page in _iterate_pages(client) for item in page}
    known = np.flatnonzero([str(label) in held for label in labels])
    strangers = np.flatnonzero([str(label) not in held for label in labels])
    asked = rng.permutation(np.concatenate([_draw(rng, known, KNOWN), _draw(rng, strangers, UNKNOWN)]))
    for start in range(0, len(asked), AT_ONCE):
        rows = asked[start : start + AT_ONCE]
        client.match([{"input": _write_data_uri(pixels[row])} for row in rows])
    client.wait(client.compute_report("gallery"))
    client.wait(client.group_unknowns())
    client.wait(client.start_label_audit())


def take_pictures(browser: Browser, address: str, out: Path, wanted: list[str]) -> None:
    """Write one PNG a page."""
    out.mkdir(parents=True, exist_ok=True)
    for name, path, scheme in PICTURES:
        if wanted and name not in wanted:
            continue
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme=scheme,  # type: ignore[arg-type]
            device_scale_factor=2 if name.startswith("dashboard") else 1.5,
        )
        page.set_default_timeout(120_000)
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        file = out / f"{name}.png"
        page.screenshot(path=file, full_page=name.startswith("dashboard"))
        # 256 colours: a third of the bytes
        Image.open(file).convert("RGB").quantize().save(file, optimize=True)
        print(file)
        page.close()


def _iterate_pages(client: Client) -> Any:
    cursor = None
    while True:
        page = client.items(cursor, 1000)
        yield page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _draw(rng: np.random.Generator, rows: Any, n: int) -> Any:
    return rng.permutation(rows)[:n]


def _write_data_uri(pixels: Any) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def main(bundle: Path, out: Path, wanted: list[str]) -> None:
    """Serve the bundle with a data folder of its own, fill a morning, and take the pictures."""
    with (
        TemporaryDirectory() as folder,
        serve(
            bundle, data=Path(folder) / "data", bundles=bundle.parent, keep_unknowns="unknown", thumbnails=96
        ) as address,
        Client(address, timeout=120) as client,
        sync_playwright() as playwright,
    ):
        fill_a_morning(client)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        take_pictures(browser, address, out, wanted)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="of limen demo")
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", nargs="*", help="names of pictures; all unless given")
    given = parser.parse_args()
    main(given.bundle, given.out, given.pages)
