"""A target of one's own: a box whose ONNX Runtime is old and reads opset 17, no later one.

    python -m examples.target bundle

In the project it is an entry of exporter/targets.py, which ``qmdd export --target old-box`` finds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from qmdd.exporter import TARGETS, ExportResult, Target, export_bundle
from qmdd.models.zoo import checkpoint_named

OLD_BOX = Target(
    name="old-box",
    summary="an old box: ONNX Runtime that reads opset 17 and no later one",
    form="onnx",  # the family of graphs: Q/DQ on codes, standard operators
    passes=("fold_stem", "pool_head", "fold_chain", "pack_weights", "lower_thresholds"),
    opsets=(17, 17),
    opset=17,
    claim="documented",  # nobody ran it on such a box; "measured" is for what was
)


def register() -> None:
    """Make it a target of this process."""
    TARGETS[OLD_BOX.name] = OLD_BOX


def main(output: str) -> ExportResult:
    """Export the built-in 2-bit checkpoint for it, compared with its source code by code."""
    register()
    checkpoint = checkpoint_named(Path("resnet23-w2a2"))
    return export_bundle(checkpoint, Path(output), target=OLD_BOX.name, force=True)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]).passed else 1)
