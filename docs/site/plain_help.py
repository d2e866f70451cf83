"""Help texts are plain: a star in one is no emphasis, ``user@host`` no address of mail."""

from __future__ import annotations

import re

import click
from sphinx.application import Sphinx

_MARKUP = re.compile(r"([*`|_@\\])")


def _escape(_app: Sphinx, _context: click.Context, lines: list[str]) -> None:
    for index, line in enumerate(lines):
        text = line.lstrip()
        if text and not text.startswith((".. ", ":", "|")):
            lines[index] = line[: -len(text)] + _MARKUP.sub(r"\\\1", text)
        elif text.startswith("| "):  # a paragraph that is not wrapped
            lines[index] = line[: -len(text)] + "| " + _MARKUP.sub(r"\\\1", text[2:])


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx, after sphinx_click."""
    for part in ("description", "epilog"):
        app.connect(f"sphinx-click-process-{part}", _escape)
    app.connect("sphinx-click-process-options", _escape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
