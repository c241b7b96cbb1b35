"""How soon the pages of a service of 10,000 classes are there, and how much data they take.

    python -m benchmarks.pages [--classes 10000] [--rounds 3]

Every page of the dashboard in Debian's chromium, opened anew: time on the clock until the first contentful
paint, processor time of everything that takes part until the network is idle (service, browser and what
drives it), and bytes of documents and data (scripts and styles are kept by the browser). Ends with exit
code 1 where a page takes more than 2 s on the clock and of processor time, or more than 2 MB of data: less
processor time than that is a paint in time on a machine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

from playwright.sync_api import Browser, sync_playwright

from service.web.navigation import PAGES
from tests.service.bundles import make_large_bundle, serve

MOST_SECONDS, MOST_BYTES = 2.0, 2_000_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
DATA = """
[...performance.getEntriesByType('resource'), performance.getEntriesByType('navigation')[0]]
  .filter((entry) => !entry.name.includes('/static/')).reduce((sum, entry) => sum + entry.decodedBodySize, 0)
"""
TICKS = os.sysconf("SC_CLK_TCK")


def measure(browser: Browser, url: str) -> tuple[float, float, int]:
    """Seconds until the first paint, processor seconds until the network is idle, and bytes of data."""
    page = browser.new_page(viewport={"width": 1240, "height": 844})
    page.set_default_timeout(600_000)
    start = process_time() + _sum_children()
    page.goto(url)
    page.wait_for_load_state("networkidle")
    used = process_time() + _sum_children() - start
    page.wait_for_function(PAINT)
    found = page.evaluate(PAINT) / 1000, used, int(page.evaluate(DATA))
    page.close()
    return found


def _sum_children() -> float:
    """Processor seconds of all processes that descend from this one."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    own = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(seconds.get(one, 0.0) for one in own - {os.getpid()})


def main() -> int:
    """Prints a table; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    good = True
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        bundle = make_large_bundle(Path(folder) / "many", given.classes)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        with serve(bundle, data=Path(folder) / "data") as address:
            measure(browser, f"{address}/dashboard")  # compiled once
            print("| page | first paint | processor time | data |\n| --- | --- | --- | --- |")
            for entry in PAGES:
                rounds = [measure(browser, address + entry.path) for _ in range(given.rounds)]
                paint, used, size = (statistics.median(column) for column in zip(*rounds, strict=True))
                good &= min(paint, used) <= MOST_SECONDS and size <= MOST_BYTES
                print(f"| {entry.title} | {paint:.2f} s | {used:.2f} s | {size / 1e6:.2f} MB |", flush=True)
        browser.close()
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
