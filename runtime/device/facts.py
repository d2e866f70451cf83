"""Facts as a machine told them, read without trust: of a wrong type, they count as missing."""

from __future__ import annotations

import math
import re
from typing import Any

#: No text of a machine's is longer, and none holds more than one line.
_LONGEST = 200


class Facts:
    """What :func:`~.probe.collect` found, on this machine or another. Nothing here raises.

    Args:
        plain: its JSON data, or anything else.
    """

    def __init__(self, plain: object) -> None:
        self._plain = plain if isinstance(plain, dict) else {}

    def table(self, section: str, *keys: str) -> dict[str, Any]:
        """The object at that place, empty if there is none."""
        found = self._at(section, *keys)
        return found if isinstance(found, dict) else {}

    def text(self, section: str, *keys: str) -> str:
        """The text at that place on one line, empty if there is none."""
        found = self._at(section, *keys)
        return " ".join(found.split())[:_LONGEST] if isinstance(found, str) else ""

    def number(self, section: str, *keys: str) -> float | None:
        """The number at that place, ``None`` if there is none."""
        found = self._at(section, *keys)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            return None
        try:
            return float(found) if math.isfinite(found) else None
        except OverflowError:  # JSON has whole numbers of any size
            return None

    def flag(self, section: str, *keys: str) -> bool | None:
        """Whether it is so, ``None`` if that is not known."""
        found = self._at(section, *keys)
        return found if isinstance(found, bool) else None

    def texts(self, section: str, *keys: str) -> tuple[str, ...]:
        """The texts of the list at that place."""
        found = self._at(section, *keys)
        known = found if isinstance(found, list) else []
        return tuple(" ".join(item.split())[:_LONGEST] for item in known if isinstance(item, str))

    def objects(self, section: str, *keys: str) -> list[Facts]:
        """The objects of the list at that place, each to be read as these are."""
        found = self._at(section, *keys)
        known = found if isinstance(found, list) else []
        return [Facts(item) for item in known if isinstance(item, dict)]

    def gpus(self) -> list[Facts]:
        """One object a GPU, each under the section ``gpu``."""
        found = self._at("cuda", "gpus")
        known = found if isinstance(found, list) else []
        return [Facts({"gpu": item}) for item in known if isinstance(item, dict)]

    def capabilities(self) -> tuple[str, ...]:
        """Compute capabilities of the GPUs, such as ``8.7``."""
        told = (gpu.text("gpu", "compute_capability") for gpu in self.gpus())
        return tuple(text for text in told if text)

    def package(self, name: str) -> str:
        """Version of an installed package, empty if it is not installed."""
        return self.text("packages", name)

    @property
    def prepared(self) -> bool:
        """Whether qmdd is installed there: if not, what it needs is not missed yet."""
        return bool(self.package("qmdd"))

    def _at(self, *keys: str) -> object:
        found: object = self._plain
        for key in keys:
            if not isinstance(found, dict):
                return None
            found = found.get(key)
        return found


def numbers(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: ``10.3.0.post1`` gives ``(10, 3, 0)``."""
    found = re.match(r"\d{1,9}(\.\d{1,9}){0,9}", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def within(version: str, span: tuple[str, str]) -> bool:
    """Whether ``version`` lies in ``span``, both ends included as far as they are spelt out."""
    found, low, high = numbers(version), numbers(span[0]), numbers(span[1])
    return bool(found) and low <= found[: len(low)] and found[: len(high)] <= high


def mebibytes(count: float) -> str:
    """A size for people: ``512 MiB``, ``7.4 GiB``."""
    mib = count / (1 << 20)
    return f"{mib:,.0f} MiB" if mib < 1024 else f"{mib / 1024:,.1f} GiB"
