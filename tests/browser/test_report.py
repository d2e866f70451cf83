"""The report of each built-in checkpoint in a real browser, offline, wide, on a phone, on paper."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmdd.models.zoo import builtin_checkpoints

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'qmdd[dev]'"
)

SAMPLE = Path(__file__).parents[2] / "exporter" / "samples_data" / "real_moose.webp"
#: Screenshots and the printed report are kept here.
SHOTS = Path(__file__).parents[2] / "out" / "screenshots"
NAMES = [path.stem for path in builtin_checkpoints()]
#: Bytes that a report may take.
LARGEST = 3_000_000
Reports = Callable[[str], Path]
Visit = Callable[..., Any]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """``report("resnet23-w2a2")``: its page, made once, as a user makes it."""
    folder = tmp_path_factory.mktemp("reports")

    def qmdd(*words: object) -> None:
        command = [sys.executable, "-m", "qmdd.cli.main", *(str(word) for word in words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def made(name: str) -> Path:
        page = folder / f"{name}.html"
        if not page.exists():
            bundle = folder / name
            qmdd("export", "--checkpoint", name, "--images", SAMPLE, "-o", bundle)
            qmdd("report", bundle, "-o", page)
        return page

    return made


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Open a file; at the end nothing may have been said on the console or asked elsewhere."""
    contexts, said, asked = [], [], []

    def opened(path: Path, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def _kept(name: str) -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS / name


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", NAMES)
def test_each_built_in_checkpoint(report: Reports, visit: Visit, name: str, width: int) -> None:
    path = report(name)
    assert path.stat().st_size <= LARGEST
    page = visit(path, width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".answer").first.inner_text().splitlines()[:2] == [
        "Exact?",
        "✓ yes, code by code",
    ]
    # Every picture is one, and none is squeezed to nothing.
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    plots = page.locator("svg[role=img]")
    assert plots.count() > 2 * 18
    least = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg[role=img]')]"
        ".map(s => s.getBoundingClientRect().width))"
    )
    assert least > 200
    page.screenshot(path=_kept(f"report-{name}-{width}.png"), full_page=True)


def test_words_are_readable_on_a_phone(report: Reports, visit: Visit) -> None:
    """No text of a plot is scaled down below 9 pixels."""
    page = visit(report(NAMES[0]), 390)
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg[role=img] text')].map(t => "
        "parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a))"
    )
    assert smallest >= 9


def test_dark(report: Reports, visit: Visit) -> None:
    path = report("resnet23-w2a2")
    colours = {}
    for scheme in ("light", "dark"):
        page = visit(path, 1280, scheme)
        colours[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.querySelector('svg text')).fill]"
        )
        page.screenshot(path=_kept(f"report-{scheme}.png"))
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert colours["dark"] == ["rgb(20, 23, 27)", "rgb(231, 234, 238)"]


def test_print(report: Reports, visit: Visit) -> None:
    """On paper: dark on white whatever the screen is, nothing cut off at the right."""
    page = visit(report("resnet23-w2a2"), 1280, "dark")
    data = page.pdf(path=_kept("report.pdf"), format="A4")
    assert data.startswith(b"%PDF")
    assert data.count(b"/Type /Page\n") > 5
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_keys_lead_through_it(report: Reports, visit: Visit) -> None:
    page = visit(report("resnet23-w2a2"))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#size")
    headings = page.locator("h1, h2, h3").evaluate_all("all => all.map(h => h.tagName)")
    assert headings.count("H1") == 1
    assert headings[0] == "H1"
