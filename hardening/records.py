"""What a long run found, kept with the machine and the versions that it ran with."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from qmdd.runtime.files import write_atomically
from qmdd.runtime.machine import processor

PACKAGES = ("torch", "onnx", "onnxruntime", "numpy", "pillow", "av", "safetensors")


def record_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write ``result`` to ``path`` as JSON, with the date, the machine and the versions."""
    data = {
        "measured": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name).split("+")[0] for name in PACKAGES},
        **result,
    }
    write_atomically(path, json.dumps(data, indent=1).encode() + b"\n")
