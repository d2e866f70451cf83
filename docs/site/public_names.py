"""Directives that write the reference from the code: what a room offers, and what lies in it.

``public-names`` takes a package and documents every name of its ``__all__`` where it is defined.
``modules`` takes a package and lists its modules with the first line of each docstring.
"""

from __future__ import annotations

import abc
import ast
import importlib
import inspect
from pathlib import Path
from types import ModuleType

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx


def documented_as(package: ModuleType, name: str) -> list[str]:
    """The lines of reStructuredText that document ``name`` of ``package``."""
    value = getattr(package, name)
    if inspect.isclass(value):
        kind, options = "class", ["   :members:", "   :show-inheritance:"]
    elif callable(value):
        kind, options = "function", []
    else:
        kind, options = "data", ["   :no-value:"]
    home = value.__module__ if kind != "data" else _home_of_constant(package, name)
    return [f".. auto{kind}:: {home}.{name}", *options, ""]


def _home_of_constant(package: ModuleType, name: str) -> str:
    """A constant does not know where it is defined; a room says it in ``_HOMES``."""
    homes: dict[str, str] = getattr(package, "_HOMES", {})
    return f"{package.__name__}.{homes[name]}" if name in homes else package.__name__


def modules_of(package: ModuleType) -> list[tuple[str, str]]:
    """Name and first line of the docstring of every module below ``package``, by name.

    The files are read, not imported: some need what is not installed.
    """
    found = []
    for root in map(Path, package.__path__):
        for path in root.rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            if name:
                found.append((name, text.split("\n\n")[0].replace("\n", " ")))
    return sorted(set(found))


class _Written(Directive, abc.ABC):
    """A directive whose lines are parsed as reStructuredText."""

    required_arguments = 1

    @abc.abstractmethod
    def lines(self, package: ModuleType) -> list[str]:
        """What is written of ``package``."""

    def run(self) -> list[nodes.Node]:
        package = importlib.import_module(self.arguments[0])
        node = nodes.container()
        self.state.nested_parse(StringList(self.lines(package), package.__name__), 0, node)
        return list(node.children)


class PublicNames(_Written):
    """Every name of a package's ``__all__``."""

    def lines(self, package: ModuleType) -> list[str]:
        return [line for name in package.__all__ for line in documented_as(package, name)]


class Modules(_Written):
    """The modules of a package, a line each."""

    def lines(self, package: ModuleType) -> list[str]:
        rows = [
            part
            for name, about in modules_of(package)
            for part in (f"   * - ``{name}``", f"     - {about}")
        ]
        return [".. list-table::", "   :widths: 25 75", "", *rows, ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("modules", Modules)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
