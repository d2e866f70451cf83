"""A short benchmark for a report, with the full-precision twin where it can be made."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.files import write_atomically
from ..errors import ExportError
from .speed import measure

Report = Callable[[str, int, int], None]


def measured(bundle: Bundle, report: Report | None = None) -> dict[str, Any]:
    """What :func:`.speed.measure` finds.

    Raises:
        SessionError: nothing here runs ``bundle``.
    """
    with tempfile.TemporaryDirectory() as folder:
        twin, why_not = _twin(bundle, Path(folder) / "twin.onnx")
        return measure(bundle, twin, why_not, report)


def _twin(bundle: Bundle, path: Path) -> tuple[Path | None, str]:
    if find_spec("torch") is None or find_spec("onnx_graphsurgeon") is None:
        return None, "torch is not installed here"

    from ..twin import twin_of_bundle

    try:
        write_atomically(path, twin_of_bundle(bundle))
    except ExportError as error:
        return None, str(error)
    return path, ""
