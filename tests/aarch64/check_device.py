"""What a device of aarch64 does with our wheel and bundles (emulated: arithmetic, not speed).

``make test-aarch64`` runs this; ``make test`` does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import Emulated

Bundles = Callable[[str], Path]


def test_the_wheel_answers(device: Emulated) -> None:
    asked = "import platform, sys; print(platform.machine(), sys.version_info[:2])"
    assert device.python("-c", asked).stdout == "aarch64 (3, 11)\n"
    done = device.qmdd("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: qmdd")


def test_detect_gives_the_scores_of_this_machine(
    device: Emulated, bundles: Bundles, images: Path
) -> None:
    bundle = bundles("onnx")
    done = device.qmdd("detect", bundle, images, "--json")
    assert done.returncode == 0, done.stderr
    found = {Path(verdict["path"]).name: verdict for verdict in json.loads(done.stdout)}
    assert len(found) == 2
    print(found)


def test_the_native_operators_equal_the_definition(root: Path, native_build: Path) -> None:
    done = Emulated(root).program(native_build / "native_check", 300, 5)
    assert done.stdout == "300 convolutions, 2 kernels: equal\n"
    assert done.returncode == 0
