"""Write a benchmark's result with the versions and the processor that it was measured with."""

from __future__ import annotations

import datetime
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from qmdd.runtime.machine import processor

RESULTS = Path(__file__).parent / "results"


def record(name: str, result: dict[str, Any]) -> None:
    """Print ``result`` and keep it as ``results/<name>.json``."""
    packages = ("torch", "onnx", "onnxruntime", "numpy", "onnx-graphsurgeon")
    data = {
        "measured": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {package: metadata.version(package).split("+")[0] for package in packages},
        **result,
    }
    text = json.dumps(data, indent=2) + "\n"
    print(text, end="")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
