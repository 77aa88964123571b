"""The report in a real browser: it is painted, in light and dark, and nothing is fetched for it.

The browser logs every request with who asked for it; no host is found, so that none is reached.
Skipped where there is no Chromium. Screenshots stay in pytest's temporary folder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from adapterbank.report.page import render_page
from tests.overview_samples import overview

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for found in map(shutil.which, NAMES) if found), "")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason=f"none of {', '.join(NAMES)} is on PATH")
DARK, LIGHT = 0, 1  # Blink's numbers of colour schemes
HOSTILE = (
    '<img src="http://elsewhere.test/x.png"/><script src="https://elsewhere.test/x.js"></script>'
)
REPORT = render_page(overview(("reds", "greens", HOSTILE), HOSTILE))


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What the browser made of a page: pixels (H, W, 3), and what the page asked a network for."""

    pixels: NDArray[np.uint8]
    asked: tuple[str, ...]

    @property
    def written(self) -> float:
        """Share of the lines of pixels that have anything on them."""
        return float(np.ptp(self.pixels.astype(int), axis=1).any(axis=1).mean())


def show(page: bytes, folder: Path, scheme: int = LIGHT) -> Shown:
    """Let the browser paint a page."""
    folder.mkdir()
    (folder / "page.html").write_bytes(page)
    subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars",
            f"--blink-settings=preferredColorScheme={scheme}", "--window-size=1200,2400",
            f"--screenshot={folder / 'page.png'}", (folder / "page.html").as_uri(),
        ],
        check=True, timeout=90, capture_output=True,
    )  # fmt: skip
    shutil.rmtree(folder / "profile", ignore_errors=True)
    with Image.open(folder / "page.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    return Shown(pixels=pixels, asked=requests((folder / "net.json").read_text()))


def requests(log: str) -> tuple[str, ...]:
    """Read from Chromium's log what was asked for by anything but Chromium itself."""
    try:
        content = json.loads(log)
    except ValueError:  # it ended before it closed the list
        content = json.loads(log.rstrip().removesuffix(",") + "]}")
    start = content["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    events = [one.get("params", {}) for one in content["events"] if one["type"] == start]
    return tuple(
        one["url"] for one in events if "url" in one and one["initiator"] != "not an origin"
    )


def test_it_is_painted_in_light_and_dark_and_asks_for_nothing(tmp_path: Path) -> None:
    light = show(REPORT, tmp_path / "light", LIGHT)
    dark = show(REPORT, tmp_path / "dark", DARK)
    for shown in (light, dark):
        assert shown.asked == ()
        assert shown.pixels.shape == (2400, 1200, 3)
        assert shown.written > 0.5
    assert light.pixels.mean() > 200
    assert dark.pixels.mean() < 80


def test_a_page_that_asked_for_something_would_be_noticed(tmp_path: Path) -> None:
    shown = show(f"<!DOCTYPE html><title>x</title>{HOSTILE}".encode(), tmp_path / "hostile")
    assert set(shown.asked) == {"http://elsewhere.test/x.png", "https://elsewhere.test/x.js"}
    assert shown.written < 0.05


def test_what_slipped_in_would_fetch_and_run_nothing(tmp_path: Path) -> None:
    slipped = f"{HOSTILE}<script>document.body.remove()</script></main>".encode()
    page = REPORT.replace(b"</main>", slipped)
    assert page != REPORT
    shown = show(page, tmp_path / "slipped")
    assert shown.asked == ()
    assert shown.written > 0.5
