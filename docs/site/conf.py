"""How the documentation becomes a site: ``make docs``, and then ``out/site/index.html``.

The source folder is the repository's root, so that a link means the same in a page of the site as
where it is read in the repository: to a page, to a heading, to a file. Everything the site shows
lies in it: no font, script or picture comes from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "qmdd"
author = "the authors of qmdd"
root_doc = "docs/index"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "plain_help",
    "public_names",
    "start_page",
]

# What is a page. Folders that are excluded are not looked into.
include_patterns = [
    "docs/**.md",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "examples/edge-box/README.md",
    "experiments/README.md",
    "hardening/*/README.md",
    "exporter/samples_data/CREDITS.md",
    "models/zoo_data/*-w*.md",
]
exclude_patterns = [
    ".*",
    "build",
    "dist",
    "out",
    "runs",
    "shared",
    "tests",
    "**/__pycache__",
    "*.egg-info",
]

# Markdown as GitHub shows it: links to headings of level 1 to 4.
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4
# Two hyphens are two hyphens: an option.
smartquotes = False

# Docstrings are Google's form; types stand in the signatures.
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "qmdd"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
