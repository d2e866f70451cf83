"""The figure of the sensitivity: both kinds, the same file from the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmdd.calibration.plot import SUFFIXES, plot
from qmdd.calibration.sensitivity import Loss

LOSSES = [
    Loss(layer, bits, 10, 10, loss / bits, 0.0, 0.0)
    for bits in (2, 8)
    for layer, loss in (("stages.0.0.conv1", 1.0), ("stages.0.0.conv2", 0.0))
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_losses_give_the_same_file(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        plot(LOSSES, path, "title")
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert len(list(tmp_path.iterdir())) == 2
