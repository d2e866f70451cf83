"""Probes: the code tensors of an exported model, as further outputs, without the onnx package.

A bundle holds, beside each model, its probes: the serialised part of a model that adds the outputs.
Protobuf merges messages that are written one behind the other, so the model's bytes and then the
probes' *are* the probed model. The exporter makes the probes and proves its bundles with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .bundle import MODEL, NATIVE_MODEL, Bundle
from .errors import BundleError

#: Metadata of a model whose code tensors are channels-last bytes, and their layout.
LAYOUT, BYTES_LAST = "qmdd.codes", "uint8 NHWC"
#: Suffix of a code tensor's name; what stands before it is the layer's.
SUFFIX = ".codes"
#: The probes of each model of a bundle.
PROBES = {MODEL: "parity/probes.pb", NATIVE_MODEL: "parity/probes.native.pb"}
#: Larger probes are refused unread (those of a ResNet-50 take 5 kB).
MAX_BYTES = 1 << 20


def layer_of(tensor: str) -> str:
    """The layer that a code tensor belongs to."""
    return tensor.removesuffix(SUFFIX)


def are_last(metadata: Mapping[str, str]) -> bool:
    """Whether the code tensors of a model with this metadata are UINT8 ``[N, H, W, C]``."""
    return metadata.get(LAYOUT) == BYTES_LAST


def channels_first(outputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Channels-last outputs as the source has them, ``[N, C, H, W]``; others as they are."""
    return {
        name: np.moveaxis(array, -1, 1) if array.ndim == 4 else array
        for name, array in outputs.items()
    }


def probes_path(bundle: Bundle, model: str = MODEL) -> Path | None:
    """The probes of ``model``, a file of ``bundle``; ``None`` if there are none."""
    name = PROBES[model]
    return bundle.path / name if name in bundle.manifest["files"] else None


def probed_model(bundle: Bundle, model: str = MODEL) -> bytes | None:
    """The bytes of ``model`` with its code tensors as further outputs; ``None`` without probes.

    Raises:
        BundleError: probes that are too large, or a file that has changed.
    """
    path = probes_path(bundle, model)
    if path is None:
        return None
    if bundle.manifest["files"][PROBES[model]]["bytes"] > MAX_BYTES:
        raise BundleError(
            f"{path}: larger than {MAX_BYTES >> 20} MiB, so not one of ours; export the bundle anew"
        )
    return bundle.read(model) + bundle.read(PROBES[model])
