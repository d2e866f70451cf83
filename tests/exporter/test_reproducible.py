"""The same detector gives the same bytes, from either form of checkpoint, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qmdd.exporter.export import export_bundle, sizes
from qmdd.models import build_detector
from qmdd.runtime.bundle import GOLDEN, MODEL

#: Another process: its own hash seed, so another order of every set in it.
SCRIPT = """
import sys
from pathlib import Path
from qmdd.exporter.export import export_bundle
from qmdd.models import resnet

resnet.LAYOUTS = {"resnet23": (resnet.BasicBlock, (1, 1, 1, 1))}
checkpoint, output, *images = (Path(name) for name in sys.argv[1:])
export_bundle(checkpoint, output, images=images, verify=False)
"""


@pytest.mark.usefixtures("shallow")
def test_exports_of_one_detector_are_the_same_bytes(
    tmp_path: Path, checkpoints: dict[str, Path], pictures: list[Path]
) -> None:
    """Latent, frozen, and latent in another process, each traced anew: model and golden file."""
    for form in ("latent", "frozen"):
        export_bundle(checkpoints[form], tmp_path / form, images=pictures, verify=False)
    command = [sys.executable, "-c", SCRIPT, checkpoints["latent"], tmp_path / "other", *pictures]
    environment = {**os.environ, "PYTHONHASHSEED": "4321", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=300, env=environment)
    for file in (MODEL, GOLDEN):
        found = [(tmp_path / name / file).read_bytes() for name in ("latent", "frozen", "other")]
        assert found[0] == found[1], file
        assert found[0] == found[2], file


def test_the_full_network_is_as_large_as_the_papers() -> None:
    """DESIGN 2: 2.67 G multiply-adds, 63.6 MB (paper: 2.7 G, 62 MB)."""
    with torch.device("meta"):
        size = sizes(build_detector("resnet23", 32), 0)
    assert round(size["multiply_adds"] / 1e9, 2) == 2.67
    assert round(size["fp32_bytes"] / 1e6, 1) == 63.6
