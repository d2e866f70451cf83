"""Results on disk: a line of JSON for a cell, a JSON file for a figure that looks into networks.

``results/cells.jsonl`` serves all figures that are made of trained cells, because they share them.
"""

from __future__ import annotations

import datetime
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from qmdd.runtime.files import write_atomically

from .errors import ExperimentError

CELLS = "cells.jsonl"
PACKAGES = ("torch", "numpy", "pillow")
#: Digits that results keep after the point.
DIGITS = 6

Line = dict[str, Any]
T = TypeVar("T")


def read_cells(folder: Path) -> dict[str, Line]:
    """The results by cell; none where there is no file yet.

    Raises:
        ExperimentError: a line is not a cell's result.
    """
    path = folder / CELLS
    if not path.exists():
        return {}
    found: dict[str, Line] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            found[line["cell"]] = line
        except (ValueError, KeyError, TypeError) as error:
            raise ExperimentError(
                f"{path}, line {number}: not a cell's result; remove the line to run the cell again"
            ) from error
    return found


def write_cell(folder: Path, line: Line) -> None:
    """Put ``line`` among the results, in name order; the file is whole at every moment."""
    cells = {**read_cells(folder), line["cell"]: line}
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(cells[name], sort_keys=True)}\n" for name in sorted(cells))
    write_atomically(folder / CELLS, text.encode())


def read_figure(folder: Path, figure: str) -> Line:
    """What ``figure`` was measured as (Fig. 3, 4, 6, 7).

    Raises:
        ExperimentError: not measured yet, or the file is damaged.
    """
    path = folder / f"{figure}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExperimentError(f"{path}: not measured yet; run experiments/{figure}_*.py") from error
    except ValueError as error:
        raise ExperimentError(f"{path}: not JSON ({error}); remove it and measure again") from error
    if not isinstance(found, dict):
        raise ExperimentError(f"{path}: not a figure's result; remove it and measure again")
    return found


def write_figure(folder: Path, figure: str, result: Line) -> None:
    """Keep ``result`` with what it was measured by; lists of numbers stay on one line."""
    folder.mkdir(parents=True, exist_ok=True)
    data = {**result, **provenance()}
    rows = ",\n".join(f"{json.dumps(key)}: {_value(data[key])}" for key in sorted(data))
    write_atomically(folder / f"{figure}.json", f"{{\n{rows}\n}}\n".encode())


def _value(value: Any) -> str:
    """Lists of objects get a line each; everything else one line."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(item, sort_keys=True) for item in value) + "\n]"
    return json.dumps(value, sort_keys=True)


def rounded(value: T) -> T:
    """Floats in ``value`` to :data:`DIGITS` digits, at any depth."""
    found: T = _rounded(value)
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value


def provenance() -> Line:
    """When and with what something was measured."""
    import torch

    return {
        "measured": datetime.date.today().isoformat(),
        "processor": _processor(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name).split("+")[0] for name in PACKAGES},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
