"""Which JetPack a Jetson has: from its package, or from the release of the L4T below it."""

from __future__ import annotations

from .facts import Facts, numbers

#: First L4T of each JetPack that we know targets for, the newest first. NVIDIA: JetPack archive.
_FIRST_L4T = (
    ((38, 4), "7.1"),
    ((38,), "7.0"),
    ((36, 4, 3), "6.2"),
    ((36, 4), "6.1"),
    ((36,), "6.0"),
    ((35, 2), "5.1"),
    ((34,), "5.0"),
    ((32, 5), "4.6"),
)


def jetpack_of(facts: Facts) -> str:
    """Such as ``6.2``; empty where it is no Jetson, or one that is not known here."""
    told = numbers(facts.text("jetson", "jetpack"))
    if len(told) >= 2:
        return f"{told[0]}.{told[1]}"
    release = numbers(facts.text("jetson", "l4t"))
    if not release or release[0] > _FIRST_L4T[0][0][0]:
        return ""
    return next((name for first, name in _FIRST_L4T if release >= first), "")
