"""The recipe that travels in a bundle."""

from __future__ import annotations

import pytest

from qmdd.exporter.engine.recipe import GENERATIONS, recipe, trtexec
from qmdd.exporter.errors import ExportError
from qmdd.exporter.targets import TARGETS, find_target
from qmdd.runtime.contract import SIDES

ENGINES = [t.name for t in TARGETS.values() if t.engine is not None and not t.refused]


@pytest.mark.parametrize("name", ENGINES)
def test_every_target_with_an_engine_has_one(name: str) -> None:
    target = find_target(name)
    text = recipe(target, SIDES)
    old = target.jetpack == "5.1"
    assert ("qmdd build ." in text) is not old
    assert ("belongs to its own Python,\n3.8" in text) is old
    assert f"`{name}`" in text
    assert target.claim in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("orin-nano@5.1", ["--int8", "workspace:512"], ["--stronglyTyped", "--fp16", "11"]),
        ("orin-nano@6.0", ["--int8"], ["--stronglyTyped", "--fp16"]),
        ("orin-nano@6.2", ["--stronglyTyped", "--system-site-packages"], ["--int8", "--fp16"]),
        ("thor@7.2", ["TensorRT 10:", "TensorRT 11:", "--stronglyTyped"], ["--int8", "--fp16"]),
        ("rtx", ["pip install 'qmdd[rtx]'", "8.6, 8.9, 12.0"], ["trtexec", "JetPack"]),
    ],
)
def test_line_of_each_generation(name: str, has: list[str], lacks: list[str]) -> None:
    text = recipe(find_target(name), SIDES)
    for part in has:
        assert part in text
    for part in lacks:
        assert part not in text


def test_trtexec_builds_for_what_qmdd_build_does() -> None:
    engine = find_target("orin-nano").engine
    assert engine is not None
    for major in GENERATIONS:
        line = trtexec(engine, major, {"min_side": 32, "max_side": 512})
        assert "--optShapes=image:1x3x256x256" in line
        assert "--noTF32" in line
    small = trtexec(engine, 10, {"min_side": 32, "max_side": 64})
    assert "--optShapes=image:1x3x64x64" in small


def test_target_without_an_engine_has_none() -> None:
    with pytest.raises(ExportError, match="target onnx has no engine"):
        recipe(find_target("onnx"), SIDES)
