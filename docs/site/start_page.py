"""``out/site/index.html``: the pages lie where they lie in the repository, so it leads to one."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>qmdd</title>
<meta http-equiv="refresh" content="0; url={page}">
<a href="{page}">qmdd</a>
</html>
"""


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        page = app.builder.get_target_uri(app.config.root_doc)
        Path(app.outdir, "index.html").write_text(_PAGE.format(page=page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
