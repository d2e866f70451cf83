"""The built site: no dead link, nothing loaded from elsewhere, every public name and command in it.

``make test-docs`` builds it first. Links that lead out are listed (``out/external-links.txt``) and
not followed: whether others' pages are there is not decided by a test.
"""

from __future__ import annotations

import importlib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sphinx.util.inventory import InventoryFile

from qmdd.cli.main import SUMMARIES

from .blocks import ROOT

SITE = ROOT / "out/site"
PAGES = sorted(SITE.rglob("*.html"))
ROOMS = ("models", "calibration", "exporter", "runtime")
#: Tags that load something, and the attribute that says what.
LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
#: Of ``link``: what is no file to be loaded.
NOT_LOADED = {"canonical", "index", "search", "next", "prev"}


class _Page(HTMLParser):
    """What a page leads to, what it loads, and the names that can be led to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.names.update(found[name] for name in ("id", "name") if name in found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in LOADS and LOADS[tag] in found and found.get("rel") not in NOT_LOADED:
            self.loaded.append(found[LOADS[tag]])


@cache
def _page(path: Path) -> _Page:
    return _Page(path)


def _dead(page: Path, link: str) -> bool:
    """Whether a link within the site leads nowhere."""
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_file() or not target.is_relative_to(SITE):
        return True
    anchored = target.suffix == ".html" and parts.fragment
    return bool(anchored) and unquote(parts.fragment) not in _page(target).names


def _outside(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


@pytest.fixture(autouse=True, scope="module")
def built() -> None:
    assert PAGES, "no site in out/site; run make docs"


def test_no_link_is_dead() -> None:
    dead = [
        f"{path.relative_to(SITE)}: {link}"
        for path in PAGES
        for link in (*_page(path).links, *_page(path).loaded)
        if not _outside(link) and _dead(path, link)
    ]
    assert not dead


def test_a_dead_link_would_be_seen() -> None:
    start = SITE / "docs/index.html"
    assert not _dead(start, "quickstart.html#what-next")
    assert _dead(start, "quickstart.html#nowhere")
    assert _dead(start, "nowhere.html")
    assert _dead(start, "../../../README.md")


def test_nothing_is_loaded_from_elsewhere() -> None:
    outside = {link for path in PAGES for link in _page(path).loaded if _outside(link)}
    assert {link for link in outside if not link.startswith("data:")} == set()
    for style in SITE.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert "@import" not in text, style
        assert "url(http" not in text.replace('"', "").replace("'", ""), style


def test_links_that_lead_out_are_listed() -> None:
    links = {link for path in PAGES for link in _page(path).links if _outside(link)}
    listed = "".join(f"{link}\n" for link in sorted(links))
    (ROOT / "out/external-links.txt").write_text(listed, encoding="utf-8")
    elsewhere = [link for link in links if urlsplit(link).hostname != "127.0.0.1"]
    assert [link for link in elsewhere if urlsplit(link).scheme != "https"] == []


def test_the_start_page_leads_to_the_first() -> None:
    assert _page(SITE / "index.html").links == ["docs/index.html"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(room: str) -> None:
    package = importlib.import_module(f"qmdd.{room}")
    with (SITE / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda _base, name: name)
    known = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    missing = [
        name
        for name in package.__all__
        if not any(at.startswith(f"qmdd.{room}.") and at.endswith(f".{name}") for at in known)
    ]
    assert not missing


def test_every_command_is_in_the_reference() -> None:
    names = _page(SITE / "docs/reference/commands.html").names
    assert not [command for command in SUMMARIES if f"qmdd-{command}" not in names]
