"""The second engine, whose codes are seen: what is asked of the builder, and that it builds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from qmdd.exporter.engine.golden import build_probed
from qmdd.exporter.errors import BuildError
from qmdd.runtime.bundle import MODEL, Bundle, manifest_bytes
from qmdd.runtime.engine import read_record
from qmdd.runtime.errors import BundleError, SessionError
from qmdd.runtime.golden import Golden
from qmdd.runtime.golden_tiers import LEAST_BUDGET, engine_work
from qmdd.runtime.probes import PROBES


def _with_probes(folder: Path, data: bytes) -> Bundle:
    (folder / "parity").mkdir()
    (folder / PROBES[MODEL]).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"][PROBES[MODEL]] = entry
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return Bundle.open(folder)


def test_probes_that_the_builder_does_not_take_end_in_one_line(
    rtx: str,
    make_bundle: Callable[..., Path],
    add_engine: Callable[..., Path],
    tmp_path: Path,
) -> None:
    value = helper.make_tensor_value_info("nowhere", TensorProto.INT8, None)
    part = helper.make_model(helper.make_graph([], "", [], [value])).SerializeToString()
    fits = {"backend": "tensorrt_rtx", "version": rtx, "target": "rtx"}
    fits |= {"compute_capabilities": ("8.6",)}
    bundle = _with_probes(add_engine(make_bundle(), **fits), part)
    with pytest.raises(BuildError, match=r"with probes: .*TensorRT cannot read it") as error:
        build_probed(bundle, read_record(bundle), [(1, 3, 64, 64)], tmp_path)
    assert "\n" not in str(error.value)


def test_without_probes_there_is_nothing_to_build(
    make_bundle: Callable[..., Path], add_engine: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = Bundle.open(add_engine(make_bundle()))
    with pytest.raises(BuildError, match="holds no probes of its codes; export it anew"):
        build_probed(bundle, read_record(bundle), [(1, 3, 64, 64)], tmp_path)


@pytest.mark.parametrize("share", [None, "0.1", -0.1, 1.5, True])
def test_a_budget_that_is_no_share_is_refused(
    make_bundle: Callable[..., Path], add_engine: Callable[..., Path], share: object
) -> None:
    bundle, golden = _with_probes(add_engine(make_bundle()), b""), _golden(64)

    def rebuild(*_: object) -> Any:
        return nullcontext()

    bundle.manifest["code_budget"] = share
    with pytest.raises(BundleError, match=r"code_budget .* is no share; export it anew"):
        engine_work(bundle, golden, rebuild, None)
    (_, codes), _ = engine_work(bundle, golden, rebuild, 0.25)
    assert codes.result.code_budget == 0.25
    del bundle.manifest["code_budget"]
    (_, codes), _ = engine_work(bundle, golden, rebuild, None)
    assert codes.result.code_budget == LEAST_BUDGET


def _golden(*sides: int) -> Golden:
    images = [np.zeros((3, side, side), dtype=np.uint8) for side in sides]
    codes = [{"a": np.zeros(4, dtype=np.uint8)} for _ in sides]
    return Golden(images, np.zeros(len(sides), dtype=np.float32), codes)


def test_images_that_the_engine_does_not_take_are_left_out_and_told(
    make_bundle: Callable[..., Path], add_engine: Callable[..., Path]
) -> None:
    """The stand-in's engine takes 32 to 64 pixels a side."""
    bundle = Bundle.open(add_engine(make_bundle()))
    (work,), (note,) = engine_work(bundle, _golden(64, 96, 32), None, 0.0)
    assert [image.shape[1] for image in work.golden.images] == [64, 32]
    assert len(work.golden.codes) == len(work.golden.logits) == 2
    assert "takes 2 of the 3 golden images (64x64, 96x96, 32x32 pixels)" in note
    assert engine_work(bundle, _golden(64), None, 0.0)[1] == []
    with pytest.raises(SessionError, match=r"none of the golden images.*--side MIN:BEST:MAX"):
        engine_work(bundle, _golden(96), None, 0.0)
