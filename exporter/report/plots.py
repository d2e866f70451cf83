"""The report's plots. Every bar has its number beside it, every line its name: no colour alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup

from .svg import element, figure, number, path, text, ticks

_LEFT, _RIGHT, _TOP, _BOTTOM = 26.0, 8.0, 8.0, 20.0
_WIDE, _HIGH = 300.0, 150.0


class Frame(NamedTuple):
    """Where data lie in a plot: ``low .. high`` from left to right, ``0 .. top`` upwards."""

    low: float
    high: float
    top: float
    width: float = _WIDE
    height: float = _HIGH

    def x(self, value: float) -> float:
        """From the left."""
        share = (value - self.low) / max(self.high - self.low, 1e-12)
        return _LEFT + share * (self.width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """From above."""
        room = self.height - _TOP - _BOTTOM
        return _TOP + room * (1 - value / max(self.top, 1e-12))

    def axes(self, ups: Sequence[float]) -> Markup:
        """Both axes with their numbers; ``ups`` are the ones that go up."""
        base = self.y(0)
        parts = [
            element("path", d=path([(_LEFT, _TOP), (_LEFT, base), (self.width - _RIGHT, base)])),
        ]
        for value in ticks(self.low, self.high, 6):
            parts.append(text(number(value), self.x(value), base + 13, text_anchor="middle"))
        for value in ups:
            parts.append(text(number(value), _LEFT - 5, self.y(value) + 3.5, text_anchor="end"))
        return element("g", *parts, class_="axes")


def step_plot(title: str, seen: Mapping[str, Any], table: Sequence[float]) -> Markup:
    """A quantizer's step function over the histogram of what it sees; ``table`` is ascending."""
    frame = _frame(seen, len(table))
    line = element("path", d=path(_stairs(frame, table)), class_="step")
    return figure(title, _WIDE, _HIGH, _hills(frame, seen), _codes(frame), line)


def channels_plot(title: str, seen: Mapping[str, Any], top: int) -> Markup:
    """The folded tables of all channels: the middle one over the band of most of them."""
    frame, tables = _frame(seen, top), seen["tables"]
    band = [*_stairs(frame, tables["early"]), *reversed(_stairs(frame, tables["late"]))]
    return figure(
        title,
        _WIDE,
        _HIGH,
        _hills(frame, seen),
        element("path", d=path(band, closed=True), class_="band"),
        _codes(frame),
        element("path", d=path(_stairs(frame, tables["median"])), class_="step"),
    )


def _stairs(frame: Frame, table: Sequence[float]) -> list[tuple[float, float]]:
    """The step function with these thresholds, from the plot's left end to its right."""
    code = sum(threshold <= frame.low for threshold in table)
    points = [(frame.low, code)]
    for threshold in table[code:]:
        if threshold > frame.high:
            break
        points += [(threshold, code), (threshold, code + 1)]
        code += 1
    points.append((frame.high, code))
    return [(frame.x(x), frame.y(y)) for x, y in points]


def _frame(seen: Mapping[str, Any], top: int) -> Frame:
    first = seen["first"]
    return Frame(first, first + seen["width"] * len(seen["counts"]), float(top))


def _hills(frame: Frame, seen: Mapping[str, Any]) -> Markup:
    """The histogram as one shape; its height is its own, the highest bar reaches the top."""
    most = max(1, *seen["counts"])
    points = [(frame.x(frame.low), frame.y(0))]
    for place, count in enumerate(seen["counts"]):
        left = frame.x(seen["first"] + place * seen["width"])
        right = frame.x(seen["first"] + (place + 1) * seen["width"])
        level = frame.y(frame.top * count / most)
        points += [(left, level), (right, level)]
    points.append((frame.x(frame.high), frame.y(0)))
    return element("path", d=path(points, closed=True), class_="hills")


def _codes(frame: Frame) -> Markup:
    """Axes, the codes going up: all of them while they are few."""
    few = frame.top <= 8
    return frame.axes([float(c) for c in range(int(frame.top) + 1)] if few else [0, frame.top])


def code_bars(title: str, codes: Sequence[int], counts: Sequence[float]) -> Markup:
    """How often each code comes; shares stand above the bars while these are few."""
    low, high = min(codes, default=0), max(codes, default=0)
    most = max([*counts, 1e-12])
    total = max(sum(counts), 1e-12)
    parts, few = [], len(codes) <= 16
    gap = min((b - a for a, b in pairwise(codes)), default=1)
    frame = Frame(low - gap / 2, high + gap / 2, most * 1.12, _WIDE, 110.0)
    for code, count in zip(codes, counts, strict=True):
        left, right = frame.x(code - 0.42 * gap), frame.x(code + 0.42 * gap)
        top, base = frame.y(count), frame.y(0)
        shape = [(left, base), (left, top), (right, top), (right, base)]
        parts.append(path(shape, closed=True))
    told = [element("path", d="".join(parts), class_="bar")]
    if few:
        told += [
            text(
                f"{100 * count / total:.0f}",
                frame.x(code),
                frame.y(count) - 2.5,
                text_anchor="middle",
                class_="small",
            )
            for code, count in zip(codes, counts, strict=True)
        ]
    labels = [
        text(str(code), frame.x(code), frame.y(0) + 13, text_anchor="middle")
        for code in (codes if few else (low, high))
    ]
    axis = element("path", d=path([(_LEFT, frame.y(0)), (_WIDE - _RIGHT, frame.y(0))]))
    return figure(title, _WIDE, 110.0, *told, element("g", axis, *labels, class_="axes"))


class Bar(NamedTuple):
    """One bar of :func:`bar_chart`: its name, its length, what is written beside it.

    ``reach``: where its whisker ends. ``other``: drawn hatched, as what is compared with.
    """

    label: str
    value: float
    told: str
    reach: float | None = None
    other: bool = False


def bar_chart(title: str, bars: Sequence[Bar]) -> Markup:
    """Bars that lie one below the other, each under its name and its number."""
    row, width = 38.0, 340.0
    most = max([max(bar.value, bar.reach or 0) for bar in bars] + [1e-12])
    parts = []
    for place, bar in enumerate(bars):
        y = place * row
        length = max((width - 6) * bar.value / most, 1.0)
        parts.append(text(bar.label, 0, y + 13))
        parts.append(text(bar.told, width, y + 13, text_anchor="end"))
        style = "bar other" if bar.other else "bar"
        parts.append(element("rect", x=0, y=y + 18, width=length, height=12, class_=style))
        if bar.reach is not None and bar.reach > bar.value:
            tip, middle = (width - 6) * bar.reach / most, y + 24
            whisker = [(length, middle), (tip, middle), (tip, middle - 4), (tip, middle + 4)]
            parts.append(element("path", d=path(whisker), class_="whisker"))
    return figure(title, width, max(len(bars), 1) * row, *parts)
