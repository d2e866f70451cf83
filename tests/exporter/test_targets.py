"""The target table: what stands in it is consistent, and wrong names are answered helpfully."""

from __future__ import annotations

import pytest

from qmdd.exporter.errors import ExportError
from qmdd.exporter.storage import choose_storage
from qmdd.exporter.targets import CLAIMS, TARGETS, find_target, passes_of


def test_names_are_their_own_keys() -> None:
    """And every claim is one that is explained."""
    for name, target in TARGETS.items():
        assert target.name == name
        assert target.claim in CLAIMS
        assert bool(target.refused) == (target.claim == "refused")


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if not t.refused])
def test_every_pass_of_a_target_is_known(name: str) -> None:
    """And defaults can be resolved for it."""
    target = find_target(name)
    storage, opset, precision = choose_storage(target, None, None)
    assert target.opsets[0] <= opset <= target.opsets[1]
    assert [known for known, _ in passes_of(target, storage, opset, precision)] == list(
        target.passes
    )


@pytest.mark.parametrize("name", [n for n, t in TARGETS.items() if t.engine is not None])
def test_an_engine_claims_no_more_than_was_seen(name: str) -> None:
    """A Jetson was never here; an RTX engine was built, on no GPU; INT8 is what all have."""
    target = TARGETS[name]
    engine = target.engine
    assert engine is not None
    assert target.claim == ("documented" if engine.backend == "tensorrt" else "built, not run")
    low, high = (tuple(map(int, version.split("."))) for version in engine.versions)
    assert low <= high
    assert engine.weak_typing == (low < (10,) and engine.backend == "tensorrt")
    assert engine.storages[0] == engine.precisions[0] == "int8"
    assert engine.workspace_mib <= 1024 * (target.memory_gib or 16) / 8


@pytest.mark.parametrize(
    ("name", "full"),
    [("orin-nano", "orin-nano@6.2"), ("orin-nano@5.1", "orin-nano@5.1"), ("thor", "thor@7.1")],
)
def test_a_jetsons_name_alone_means_its_usual_jetpack(name: str, full: str) -> None:
    """Which is said in the summary."""
    target = find_target(name)
    assert target.name == full
    assert target.summary.endswith(f"JetPack {target.jetpack}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("orin-nana", "did you mean orin-nano"),
        ("toaster", "there are onnx, .*canonical, orin-nano, "),
        ("orin-nano@4.6", "orin-nano runs JetPack 6.2, 6.1, 6.0, 5.1, 7.2"),
        ("rtx@5.1", "did you mean rtx"),
        ("jetson-nano", "has no INT8 arithmetic"),
        ("", "there are onnx"),
    ],
)
def test_a_wrong_name_is_answered_with_what_there_is(name: str, says: str) -> None:
    """Near names, JetPacks, or all."""
    with pytest.raises(ExportError, match=says):
        find_target(name)


@pytest.mark.parametrize(
    ("target", "weights", "opset", "precision", "found"),
    [
        ("orin-nano", None, None, None, ("int8", 17, "int8")),
        ("orin-nano", None, None, "int4", ("int8", 21, "int4")),
        ("orin-nano", "int2", None, None, ("int2", 17, "int8")),
        ("rtx", None, None, "int4", ("int4", 21, "int4")),
        ("rtx", "int2", None, None, ("int2", 21, "int8")),
        ("rtx", None, 19, None, ("int8", 19, "int8")),
        ("onnx", None, None, None, ("own", 21, "int8")),
        ("onnx", "int2", None, None, ("int2", 25, "int8")),
    ],
)
def test_defaults_follow_what_was_asked(
    target: str,
    weights: str | None,
    opset: int | None,
    precision: str | None,
    found: tuple[str, int, str],
) -> None:
    """An opset that holds the storage; INT4 as a storage only where engines have it."""
    assert choose_storage(find_target(target), weights, opset, precision) == found


@pytest.mark.parametrize(
    ("target", "weights", "opset", "precision", "says"),
    [
        ("orin-nano@5.1", None, None, "int4", "has no precision int4; it has int8"),
        ("onnx", None, None, "int8", "target onnx has no --precision"),
        ("orin-nano@5.1", None, 21, None, "is written at opset 17 to 17, not 21"),
        ("rtx", "int4", 17, None, "weights as int4 need opset 21, not 17"),
        ("orin-nano", None, 17, "int4", "INT4 products need opset 21, not 17"),
        ("rtx", "int3", None, None, "no weight storage 'int3'"),
        ("canonical", "int8", None, None, "keeps weights as they are traced"),
    ],
)
def test_what_does_not_go_together_is_refused(
    target: str, weights: str | None, opset: int | None, precision: str | None, says: str
) -> None:
    """With what does."""
    with pytest.raises(ExportError, match=says):
        choose_storage(find_target(target), weights, opset, precision)
