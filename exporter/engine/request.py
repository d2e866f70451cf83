"""What the builder's process is asked, as plain JSON; nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from ..errors import BuildError

Shape = tuple[int, int, int, int]
Bounds = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Profile:
    """Shapes of the input ``image``, ``[N, 3, H, W]``, that an engine takes; best at ``opt``."""

    min: Shape
    opt: Shape
    max: Shape

    @classmethod
    def of(cls, batch: Bounds, side: Bounds) -> Profile:
        """From images at once and sides in pixels, least, best and most of each."""
        least, best, most = ((n, 3, s, s) for n, s in zip(batch, side, strict=True))
        return cls(least, best, most)


@dataclasses.dataclass(frozen=True)
class BuildRequest:
    """One build.

    Attributes:
        backend: ``tensorrt`` or ``tensorrt_rtx``.
        model: the ONNX file.
        folder: existing folder for all that the builder writes.
        compute_capabilities: to build for, such as ``8.6``; empty: of this machine's GPU.
        versions: lowest and highest TensorRT that may build, such as ``10.3``; both included.
        workspace: most bytes of scratch memory that a layer may take.
        profile: shapes to build for.
        probes: the model has code tensors as further outputs, which are no part of a detector.
    """

    backend: str
    model: str
    folder: str
    compute_capabilities: tuple[str, ...]
    versions: tuple[str, str]
    workspace: int
    profile: Profile
    probes: bool = False

    def to_json(self) -> str:
        """One line for the builder's standard input."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        """What :meth:`to_json` wrote."""
        plain: dict[str, Any] = json.loads(text)
        shapes = {name: tuple(shape) for name, shape in plain.pop("profile").items()}
        for name in ("compute_capabilities", "versions"):
            plain[name] = tuple(plain[name])
        return cls(**plain, profile=Profile(**shapes))


def bounds_of(text: str, what: str, low: int, high: int, multiple: int = 1) -> Bounds:
    """``least:best:most``, or one number for all three.

    Args:
        text: as given on the command line.
        what: the option's name, for the message.
        low: least that is allowed.
        high: most that is allowed.
        multiple: of which each number must be one.

    Raises:
        BuildError: not such a text, out of order or out of range.
    """
    parts = text.split(":")
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() for part in parts):
        raise BuildError(f"{what} {text!r}: give one number, or LEAST:BEST:MOST")
    numbers = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
    least, best, most = numbers
    if not low <= least <= best <= most <= high:
        raise BuildError(f"{what} {text}: must ascend within {low}..{high}")
    if any(number % multiple for number in numbers):
        raise BuildError(f"{what} {text}: must be multiples of {multiple}")
    return least, best, most
