"""Shapes that no inference finds, seen by running the model once.

Where the places of windows are computed from the image's sides (:mod:`.passes.columns`), ONNX's
shape inference gives up; ONNX Runtime, which a lowered model is checked with anyway, knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx


def shapes_by_run(
    model: onnx.ModelProto, kinds: Mapping[str, int], side: int
) -> dict[str, tuple[int, ...]]:
    """Dims of tensors for one image of ``side x side`` pixels.

    Args:
        kinds: element types (of ``TensorProto``) by the tensors' names.

    Raises:
        SessionError: ONNX Runtime is missing or cannot run the model.
    """
    import onnx
    from onnx import helper

    from ..runtime.session import OnnxSession

    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    known = {value.name for value in probed.graph.output}
    for name, kind in kinds.items():
        if name not in known:
            probed.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    session = OnnxSession(probed.SerializeToString(), threads=1, outputs=list(kinds))
    found = session.run(np.zeros((1, 3, side, side), dtype=np.uint8))
    return {name: array.shape for name, array in found.items()}
