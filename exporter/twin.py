"""The full-precision twin of a bundle as an ONNX file: the same topology, nothing quantised.

Times are compared with it. It goes through the passes of ``--target onnx``, as a full-precision
checkpoint does: raw uint8 pixels in, NPR explicit (a float stem folded into one with it would round
otherwise). Its weights are random, which its time does not depend on.
"""

from __future__ import annotations

import dataclasses
import json

import torch

from ..models import Detector
from ..models.config import DetectorConfig
from ..models.quantizers import FULL_PRECISION
from ..models.registry import detector_from_config
from ..runtime.bench_twin import KEY, config_of, topology
from ..runtime.bundle import Bundle
from .errors import ExportError
from .lower import check_model, onnx_for_target
from .storage import choose_storage
from .targets import find_target
from .trace import canonical_from_detector


def twin_config(config: DetectorConfig) -> DetectorConfig:
    """``config`` in full precision."""
    return dataclasses.replace(config, bits=FULL_PRECISION, layer_bits=())


def twin_detector(config: DetectorConfig, seed: int = 0) -> Detector:
    """The twin of ``config`` in evaluation mode, its random weights the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return detector_from_config(twin_config(config)).eval()


def twin_onnx(twin: Detector) -> bytes:
    """``twin`` as a serialised ONNX model that says whose twin it is.

    Raises:
        ExportError: it cannot be traced or lowered.
    """
    target = find_target("onnx")
    storage, opset, precision = choose_storage(target, None, None, None)
    lowered = onnx_for_target(canonical_from_detector(twin), target, storage, opset, precision)
    entry = lowered.model.metadata_props.add()
    entry.key, entry.value = KEY, topology(json.loads(twin.config.to_json()))
    check_model(lowered.model)
    data: bytes = lowered.model.SerializeToString(deterministic=True)
    return data


def twin_of_bundle(bundle: Bundle) -> bytes:
    """The twin of a bundle, from what its manifest says of the network.

    Raises:
        ExportError: the network is in no registry, so its topology is not known here.
    """
    config = config_of(bundle)
    if config is None:
        raise ExportError(
            f"{bundle.path}: exported from a network that is in no registry, so that its "
            "full-precision twin cannot be built"
        )
    return twin_onnx(twin_detector(DetectorConfig.from_json(json.dumps(config))))
