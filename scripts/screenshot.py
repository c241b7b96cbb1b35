"""Take the pictures of the README: the dashboard of a running service, in chromium.

python scripts/screenshot.py http://127.0.0.1:8000 docs/pictures
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
]
# name, width, height of the window, colour scheme
PICTURES = [
    ("dashboard-light", 1240, 800, "light"),
    ("dashboard-dark", 1240, 800, "dark"),
]


def take_pictures(address: str, out: Path) -> None:
    """Write one PNG per picture, of the whole page."""
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        for name, width, height, scheme in PICTURES:
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,  # type: ignore[arg-type]
                device_scale_factor=2,
            )
            page.goto(f"{address}/dashboard")
            page.wait_for_selector("body[data-drawn]")
            path = out / f"{name}.png"
            page.screenshot(path=path, full_page=True)
            # 256 colours: a third of the bytes
            Image.open(path).convert("RGB").quantize().save(path, optimize=True)
            print(path)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address", help="of a running service, e.g. http://127.0.0.1:8000")
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    take_pictures(given.address, given.out)
