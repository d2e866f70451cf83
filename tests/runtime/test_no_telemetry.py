"""Nothing is reported to ONNX Runtime's makers: it would leave its files in the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DETECT = """
import sys
from qmdd.runtime import Detector
print(Detector.open(sys.argv[1], threads=1).bundle.bits)
"""
PROBE = """
import sys
from qmdd.runtime.device import probe
print(probe._imported(sys.executable, "onnxruntime")["version"])
"""


def files_left(home: Path, code: str, *arguments: str, **settings: str) -> list[str]:
    """What a process of ours leaves in an empty home folder."""
    home.mkdir()
    # With these, ONNX Runtime takes the process for a test and is quiet by itself.
    loud = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "XDG_CACHE_HOME")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**loud, "HOME": str(home), **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [path.name for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("code", [DETECT, PROBE], ids=["detect", "probe"])
def test_nothing_is_left(make_bundle: Callable[..., Path], tmp_path: Path, code: str) -> None:
    assert files_left(tmp_path / "home", code, str(make_bundle())) == []
