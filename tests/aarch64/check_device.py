"""What a device of aarch64 makes of our wheel and bundles (emulated: arithmetic, not speed).

``make test-aarch64`` runs this; ``make test`` does not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.runtime.bundle import manifest_bytes
from qmdd.runtime.detector import Detector
from qmdd.runtime.golden import read_golden, write_golden

from .conftest import Emulated

Bundles = Callable[[str], Path]
GOLDEN = "parity/golden.safetensors"
#: Quantizers of ResNet-23.
LAYERS = 18


def verified(device: Emulated, *line: object, code: int = 0) -> dict[str, Any]:
    done = device.qmdd("verify", *line, "--golden", "--json")
    assert done.returncode == code, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def codes_of(bundle: Path) -> int:
    """Codes of all layers and images in the golden results."""
    golden = read_golden(bundle / GOLDEN)
    assert (len(golden.images), len(golden.layers)) == (2, LAYERS)
    return sum(array.size for image in golden.codes for array in image.values())


def test_the_wheel_answers(device: Emulated) -> None:
    asked = "import platform, sys; print(platform.machine(), sys.version_info[:2])"
    assert device.python("-c", asked).stdout == "aarch64 (3, 11)\n"
    done = device.qmdd("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: qmdd")


def test_detect_scores_as_this_machine_does(
    device: Emulated, bundles: Bundles, images: Path
) -> None:
    image = min(images.iterdir(), key=lambda path: path.stat().st_size)
    done = device.qmdd("detect", bundles("onnx"), image, "--json")
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)
    expected = Detector.open(bundles("onnx")).score(image)
    assert verdict["score"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("target", ["onnx", "cpu"])
def test_no_code_is_wrong(device: Emulated, bundles: Bundles, target: str) -> None:
    """The optimiser of ONNX Runtime off, then on, with the wheel that any machine can install."""
    result = verified(device, bundles(target))
    assert [tier["tier"] for tier in result["parity"]] == ["strict", "deployed"]
    for tier in result["parity"]:
        assert (tier["runtime"], tier["images"]) == ("onnxruntime", 2)
        assert (tier["wrong_codes"], tier["flipped_verdicts"]) == (0, 0)
        assert tier["codes_compared"] == codes_of(bundles(target))


def test_no_code_of_the_native_operators_is_wrong(
    native_device: Emulated, bundles: Bundles
) -> None:
    result = verified(native_device, bundles("cpu"), "--tier", "deployed", "--runtime", "native")
    native = result["parity"][-1]
    assert (native["tier"], native["runtime"], native["images"]) == ("native", "native", 2)
    assert (native["wrong_codes"], native["codes_compared"]) == (0, codes_of(bundles("cpu")))


def test_one_wrong_code_is_found(device: Emulated, bundles: Bundles, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(bundles("onnx"), tmp_path / "bundle"))
    path = bundle / GOLDEN
    golden = read_golden(path)
    codes = {layer: array.copy() for layer, array in golden.codes[1].items()}
    codes[golden.layers[7]].reshape(-1)[5] ^= 1
    golden.codes[1] = codes
    write_golden(path, golden)
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    data = path.read_bytes()
    manifest["files"][GOLDEN] = {
        "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    (bundle / "manifest.json").write_bytes(manifest_bytes(manifest))
    result = verified(device, bundle, "--tier", "strict", code=1)
    (tier,) = result["parity"]
    assert {layer["layer"]: layer["wrong"] for layer in tier["layers"] if layer["wrong"]} == {
        golden.layers[7]: 1
    }


def test_the_native_operators_equal_their_definition(root: Path, native_build: Path) -> None:
    done = Emulated(root).program(native_build / "native_check", 300, 5)
    assert done.stdout == "300 convolutions, 2 kernels: equal\n"
    assert done.returncode == 0
