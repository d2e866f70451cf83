"""One-operator models for the native operators, and what they mean, in numpy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.passes.native_conv import packed_bits
from qmdd.runtime import native

Array = npt.NDArray[Any]


@dataclasses.dataclass
class Layer:
    """A ``QuantConv``: its arrays, and the attributes that are not defaults."""

    x: Array  # codes [n, h, w, c], without halo
    index: Array  # of weights, [o, kh, kw, c / groups]
    multiplier: Array
    bias: Array
    table: Array | None = None
    addends: tuple[Array, ...] = ()
    factors: tuple[float, ...] = ()
    chain: tuple[Array, Array, Array] | None = None
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def full(self) -> dict[str, Any]:
        """All attributes."""
        outputs, kh, kw, each = self.index.shape
        groups = self.attrs.get("groups", 1)
        return {
            "in_channels": each * groups,
            "out_channels": outputs,
            "groups": 1,
            "kernel": [kh, kw],
            "stride": [1, 1],
            "pads": [0, 0, 0, 0],
            "in_halo": [0, 0, 0, 0],
            "out_halo": 0,
            "top_code": 255,
            "pad_code": 0,
            "out_pad_code": 0,
            "bits": 2,
            "first": -3,
            "step": 2,
            "relu": 0,
            "pool": [0, 0, 0],
            "addends": len(self.addends),
            "factors": list(self.factors) or [1.0],
            **self.attrs,
        }


def model_of(layer: Layer, **changed: Any) -> bytes:
    """A model of this one operator: x (and addends) in, codes and z out.

    ``changed``: attributes, or arrays of constants, that are given in place of the layer's.
    """
    attrs = {**layer.full, **{k: v for k, v in changed.items() if not isinstance(v, np.ndarray)}}
    shift_in, slope, shift_out = layer.chain or (None, None, None)
    constants = {
        "weights": packed_bits(layer.index.astype(np.int64), attrs["bits"]),
        "multiplier": layer.multiplier,
        "bias": layer.bias,
        "table": layer.table,
        "shift_in": shift_in,
        "slope": slope,
        "shift_out": shift_out,
        **{k: v for k, v in changed.items() if isinstance(v, np.ndarray)},
    }
    names = [name if value is not None else "" for name, value in constants.items()]
    addends = [f"addend{i}" for i in range(len(layer.addends))]
    outputs = ["codes" if layer.table is not None else "", "z"]
    node = helper.make_node(
        "QuantConv", ["x", *names, *addends], outputs, domain="qmdd", name="layer", **attrs
    )
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [None] * 4)]
    inputs += [helper.make_tensor_value_info(a, TensorProto.FLOAT, [None] * 4) for a in addends]
    infos = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    if layer.table is not None:
        infos.insert(0, helper.make_tensor_value_info("codes", TensorProto.UINT8, None))
    stored = [numpy_helper.from_array(v, k) for k, v in constants.items() if v is not None]
    return serialised([node], inputs, infos, stored)


def serialised(nodes: list[Any], inputs: list[Any], outputs: list[Any], stored: list[Any]) -> bytes:
    """A model with our domain."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("qmdd", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def session_of(model: bytes, threads: int = 1) -> Any:
    """A plain session of ONNX Runtime with the library."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(str(native.require_library()))
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(layer: Layer, threads: int = 1) -> tuple[Array | None, Array]:
    """Codes (or none) and z, by the library."""
    attrs = layer.full
    top, left, bottom, right = attrs["in_halo"]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    feeds = {"x": np.pad(layer.x, pads, constant_values=attrs["pad_code"])}
    feeds |= {f"addend{i}": a for i, a in enumerate(layer.addends)}
    found = session_of(model_of(layer), threads).run(None, feeds)
    return (found[0] if layer.table is not None else None), found[-1]


def expected(layer: Layer) -> tuple[Array | None, Array]:
    """The same by the definition (runtime/native/conv.h), in integers and float32."""
    attrs = layer.full
    (kh, kw), (sh, sw) = attrs["kernel"], attrs["stride"]
    top, left, bottom, right = attrs["pads"]
    codes = layer.x.astype(np.int64) - attrs["pad_code"]
    codes = np.pad(codes, ((0, 0), (top, bottom), (left, right), (0, 0)))
    weights = attrs["first"] + attrs["step"] * layer.index.astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, (kh, kw), axis=(1, 2))
    windows = windows[:, ::sh, ::sw]  # [n, h, w, c, kh, kw]
    if attrs["groups"] == 1:
        acc = np.einsum("nhwcyx,oyxc->nhwo", windows, weights)
    else:
        acc = np.einsum("nhwcyx,cyx->nhwc", windows, weights[..., 0])
    with np.errstate(all="ignore"):
        z = acc.astype(np.float32) * layer.multiplier + layer.bias
        for addend, factor in zip(layer.addends, layer.factors, strict=True):
            z = z + addend * np.float32(factor)
        if attrs["relu"]:
            z = np.where(z > 0, z, np.float32(0))
        if attrs["pool"][0]:
            z = _pooled(z, *attrs["pool"])
        if layer.table is None:
            return None, z
        v = z
        if layer.chain is not None:
            shift_in, slope, shift_out = layer.chain
            v = v + shift_in
            v = np.where(v < 0, v * slope, v) + shift_out
        found = (v[..., None] >= layer.table).sum(-1).astype(np.uint8)
    halo = attrs["out_halo"]
    pads = ((0, 0), (halo, halo), (halo, halo), (0, 0))
    return np.pad(found, pads, constant_values=attrs["out_pad_code"]), z


def _pooled(z: Array, size: int, stride: int, pad: int) -> Array:
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    wide = np.pad(z, around, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride].max((-2, -1))


def load(model: bytes) -> onnx.ModelProto:
    """The model's message."""
    return onnx.load_from_string(model)
