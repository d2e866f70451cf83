"""Scalable pictures as markup: whatever is put into an element is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup, escape

_CLOSED = Markup("<{name}{attributes}>{inside}</{name}>")


def element(name: str, *children: str, **attributes: object) -> Markup:
    """``<name attributes>children</name>``; children that are no markup are escaped.

    Attributes are written as SVG has them: ``class_`` is ``class``, ``stroke_width``
    ``stroke-width``; numbers with two decimals at most.

    >>> element("text", "a < b", x=1.0, class_="t")
    Markup('<text x="1" class="t">a &lt; b</text>')
    """
    told = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
    )
    inside = Markup("").join(escape(child) for child in children)
    return _CLOSED.format(name=name, attributes=told, inside=inside)


def figure(title: str, width: float, height: float, *children: Markup) -> Markup:
    """A picture with a title that screen readers say; it takes the width that it is given."""
    return element(
        "svg",
        element("title", title),
        *children,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        role="img",
        class_="plot",
    )


def text(words: str, x: float, y: float, **attributes: object) -> Markup:
    """Words at a place."""
    return element("text", words, x=x, y=y, **attributes)


def path(points: Iterable[tuple[float, float]], *, closed: bool = False) -> str:
    """The ``d`` of a line through ``points``.

    >>> path([(0, 0), (1.5, 2)])
    'M0 0L1.5 2'
    """
    line = "L".join(f"{_plain(x)} {_plain(y)}" for x, y in points)
    return f"M{line}Z" if closed else f"M{line}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most`` and at least one step of them.

    >>> ticks(0, 10)
    [0.0, 5.0, 10.0]
    """
    span = max(high - low, 1e-12)
    size = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * m for m in (1, 2, 5, 10, 20) if span / (size * m) < most)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's label: as few digits as it needs.

    >>> number(0.30000000000000004)
    '0.3'
    """
    return f"{value:.4g}"


def _plain(value: object) -> str:
    """A number short; anything else as text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
    return str(value)
