"""The built site in headless Chromium: no error in the console, no page that scrolls sideways."""

from __future__ import annotations

from typing import Any

import pytest

from .blocks import ROOT

SITE = ROOT / "out/site"
#: Sides of a window, pixels; screenshots of a few pages are kept.
SIZES = {"wide": (1280, 900), "phone": (390, 844)}
KEPT = ("docs/index.html", "docs/concepts.html", "docs/targets.html")
_TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("name", SIZES)
def test_pages_fit_the_window_and_say_no_error(browser: Any, name: str) -> None:
    width, height = SIZES[name]
    errors, wide = [], []
    page = browser.new_page(viewport={"width": width, "height": height})
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("requestfailed", lambda request: errors.append(request.url))
    pages = sorted(path for path in SITE.glob("*/**/*.html"))
    assert pages, "no site in out/site; run make docs"
    for path in pages:
        page.goto(path.as_uri())
        if page.evaluate(_TOO_WIDE) > 0:
            wide.append(path.relative_to(SITE).as_posix())
        if path.relative_to(SITE).as_posix() in KEPT:
            page.screenshot(path=ROOT / f"out/screenshots/site-{path.stem}-{name}.png")
    page.close()
    assert errors == []
    assert wide == []
