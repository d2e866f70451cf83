"""From the built-in checkpoint to an audited engine, as a user does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt

#: Size of the engine over that with weights as INT8, at most.
SIZES = {"int8": 1.0, "int4": 0.60, "int2": 0.45}


def qmdd(folder: Path, *args: object) -> Any:
    """What a command prints as JSON, a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "qmdd.cli.main", *map(str, args), "--json"],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def engines(
    tmp_path_factory: pytest.TempPathFactory,
    image_folder: Path,
    trace_once: Callable[[Any], Any],
) -> dict[str, dict[str, Any]]:
    """The engine of the built-in ResNet-23 in every storage; as INT8 built twice.

    INT8 takes real processes all the way; for the others the network is traced once, in this one.
    """
    try:
        load_tensorrt("tensorrt_rtx")
    except EngineError as error:
        pytest.skip(str(error))
    from qmdd.exporter.export import export_bundle
    from qmdd.models.zoo import builtin_checkpoint

    folder = tmp_path_factory.mktemp("engines")
    image = image_folder / "alpha" / "0_real" / "0.png"
    options = ("--target", "rtx", "--weights", "int8", "--no-verify", "--images", image)
    qmdd(folder, "export", "--bits", 2, *options, "-o", "int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qmdd.exporter.trace.canonical_from_detector", trace_once)
        for storage in ("int4", "int2"):
            export_bundle(
                builtin_checkpoint("resnet23", 2),
                folder / storage,
                target="rtx",
                weights=storage,
                images=[image],
                verify=False,
            )
    found = {storage: qmdd(folder, "build", storage) for storage in SIZES}
    found["again"] = qmdd(folder, "build", "int8")
    found["inspected"] = qmdd(folder, "inspect", "int8")
    return found


def test_everything_runs_as_planned(engines: dict[str, dict[str, Any]]) -> None:
    """22 convolutions, the stem as two, INT8 x INT8; no warning that nobody has looked into."""
    for storage in SIZES:
        audit = engines[storage]["audit"]
        assert audit["int8_planned"] == audit["int8_built"] == 23
        assert audit["faults"] == []
        assert audit["unlisted_warnings"] == 0
        record = engines[storage]["record"]
        assert record["label"] == "built, not run"
        assert record["compute_capabilities"] == ["8.6", "8.9", "12.0"]


def test_narrow_weights_make_small_engines(engines: dict[str, dict[str, Any]]) -> None:
    """As INT4 and as two codes to a nibble."""
    sizes = {storage: engines[storage]["record"]["sizes"]["engine"] for storage in SIZES}
    for storage, most in SIZES.items():
        assert sizes[storage] <= most * sizes["int8"]


def test_two_builds_are_the_same_bytes(engines: dict[str, dict[str, Any]]) -> None:
    """And inspect tells of the last one."""
    first, second = (engines[name]["record"]["engine_sha256"] for name in ("int8", "again"))
    assert first == second
    assert engines["inspected"]["record"]["engine_sha256"] == second
    assert engines["inspected"]["audit"]["passed"]
