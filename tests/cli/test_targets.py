"""``qmdd targets``: the table, one target in full, and wrong names."""

from __future__ import annotations

import json

import pytest

from qmdd.exporter.targets import CLAIMS, TARGETS


def test_every_target_has_its_row(invoke) -> None:
    """With its claim, and what the claims mean below."""
    result = invoke("targets")
    assert result.exit_code == 0
    rows = result.stdout.splitlines()
    for name, target in TARGETS.items():
        (row,) = [row for row in rows if row.split(" ")[0] == name]
        assert row.rstrip().endswith(target.claim)
    for claim in ("measured", "built, not run", "documented"):
        assert f"{claim}: {CLAIMS[claim]}" in rows


def test_json_holds_all_of_it(invoke) -> None:
    """A list of objects; one object with a name."""
    found = json.loads(invoke("targets", "--json").stdout)
    assert [target["name"] for target in found] == list(TARGETS)
    one = json.loads(invoke("targets", "orin-nano@5.1", "--json").stdout)
    assert one in found
    assert one["engine"]["versions"] == ["8.5", "8.5"]
    assert one["engine"]["weak_typing"] is True


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("orin-nano", ["Jetson Orin Nano 8 GB, JetPack 6.2", "sm87", "10.3-10.7", "documented"]),
        ("jetson-nano", ["refused", "has no INT8 arithmetic", "--target onnx"]),
        ("rtx", ["sm86 sm89 sm120", "int8, int4, int2", "built, not run"]),
    ],
)
def test_one_target_in_full(invoke, name: str, says: list[str]) -> None:
    """A refused one with its reason."""
    result = invoke("targets", name)
    assert result.exit_code == 0
    for text in says:
        assert text in result.stdout


def test_a_wrong_name_is_wrong_usage(invoke) -> None:
    """With what was probably meant."""
    result = invoke("targets", "orin-nani")
    assert result.exit_code == 2
    assert "did you mean orin-nano" in " ".join(result.stderr.split())
