"""Frozen detector to canonical ONNX, through ``torch.onnx.export(dynamo=True)``.

The tracer would decompose our quantizers (logarithm, comparisons, casts) into dozens of nodes that
no pass could recognise again. So a traced copy of the detector stands in: where the source has a
quantizer it puts one opaque node ``qmdd::MultiThreshold(x, thresholds)``, where the source has
integer weights it puts ``DequantizeLinear(codes, 1)``, and batch-norm, alpha, scale and step are
the two constants of ``acc * m + b`` that evaluation is defined by (DESIGN 3.1).

The graph is traced at one size; nothing in it depends on the size but the NPR nodes, which
:mod:`.passes.fold_stem` removes, so the batch and both sides are dynamic afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import Detector, ModelError, quantized_layers
from ..models.checkpoint import tables
from ..models.conv import QuantConv2d
from .errors import ExportError
from .multithreshold import DOMAIN, OPSET, add_function
from .probes import SUFFIX

if TYPE_CHECKING:
    import onnx

#: Opset of the canonical graph.
CANONICAL_OPSET = 21
#: Side of the image that the graph is traced with; the exported graph takes any.
TRACE_SIDE = 64
INPUT, OUTPUT = "image", "logit"


class _OpaqueQuantizer(nn.Module):
    """Emits ``qmdd::MultiThreshold`` with the table that bisection found for the source."""

    table: Tensor

    def __init__(self, layer: str, table: np.ndarray, step: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.step = step.detach()
        self.register_buffer("table", torch.from_numpy(table.reshape(1, -1).copy()))

    def codes(self, x: Tensor) -> Tensor:
        """Opaque codes of ``x``."""
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::MultiThreshold",
            (x, self.table),
            {"layer": self.layer},
            dtype=torch.float32,
            shape=x.shape,
            version=OPSET,
        )


class _OpaqueConv(nn.Module):
    """A convolution on integer weight codes, then ``acc * m + b``."""

    codes: Tensor
    multiplier: Tensor
    bias: Tensor
    one: Tensor

    def __init__(self, conv: QuantConv2d, step: Tensor, gain: Tensor | None) -> None:
        super().__init__()
        frozen = conv.frozen()
        multiplier, bias = conv.affine(frozen, step, gain)
        small = int(frozen.codes.abs().max()) < 128
        self.stride, self.padding = conv.stride, conv.padding
        self.quantizer = "opaque"  # not None: the blocks ask
        self.register_buffer("codes", frozen.codes.to(torch.int8 if small else torch.int16))
        self.register_buffer("one", torch.ones(()))
        self.register_buffer("multiplier", multiplier.detach().reshape(1, -1, 1, 1))
        self.register_buffer("bias", bias.detach().reshape(1, -1, 1, 1))

    def evaluate(self, codes: Tensor, step: Tensor, gain: Tensor | None = None) -> Tensor:
        """``conv(codes, weight codes) * m + b``; step and gain are folded already."""
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (self.codes, self.one),
            dtype=torch.float32,
            shape=self.codes.shape,
            version=CANONICAL_OPSET,
        )
        acc = F.conv2d(codes, weight, stride=self.stride, padding=self.padding)
        return acc * self.multiplier + self.bias


def _opaque_copy(detector: Detector) -> Detector:
    """A copy of ``detector`` whose quantizers and convolutions trace to the nodes above."""
    try:
        found = tables(detector)
    except ModelError as error:
        raise ExportError(str(error)) from error
    memo: dict[int, object] = {}
    for module in detector.modules():  # weights are large and replaced below: do not copy them
        if isinstance(module, QuantConv2d):
            memo[id(module)] = module
    traced: Detector = copy.deepcopy(detector, memo)
    traced.stem.conv = _OpaqueConv(detector.stem.conv, detector.stem.gain, None)  # type: ignore[assignment]
    layers = dict(quantized_layers(detector))
    for name, layer in quantized_layers(traced):
        source = layers[name]
        layer.conv = _OpaqueConv(source.conv, source.step, source.alpha)  # type: ignore[assignment]
        layer.act.quantizer = _OpaqueQuantizer(name, found[name], source.step)  # type: ignore[assignment]
    _replace_downsampling(traced, detector)
    return traced


def _replace_downsampling(traced: Detector, detector: Detector) -> None:
    for stage, source_stage in zip(traced.stages, detector.stages, strict=True):
        for block, source in zip(stage, source_stage, strict=True):  # type: ignore[call-overload]
            if source.downsample is not None:
                step = source.path()[0].step
                block.downsample = _OpaqueConv(source.downsample, step, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter's progress prints and deprecation warnings are not our user's business."""
    names = ("torch.onnx", "onnxscript", "torch.export", "torch._export", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def canonical_from_detector(detector: Detector) -> onnx.ModelProto:
    """Trace a quantised detector into canonical ONNX (opset 21, plus ``qmdd`` 1).

    The model loads in any runtime: ``qmdd::MultiThreshold`` carries a body in standard operators.

    Raises:
        ExportError: full precision, a quantizer without a table, or a tracer that failed.
    """
    if not detector.config.quantized:
        raise ExportError(
            "a full-precision detector has no codes to export; train or calibrate it with --bits"
        )
    traced = _opaque_copy(detector.eval())
    image = torch.zeros(1, 3, TRACE_SIDE, TRACE_SIDE, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                traced,
                (image,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=CANONICAL_OPSET,
                dynamo=True,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            raise ExportError(f"tracing failed: {type(error).__name__}: {error}") from error
    if program is None:
        raise ExportError("tracing failed: the exporter returned nothing")
    model: onnx.ModelProto = program.model_proto
    _strip(model)
    _name_codes(model)
    add_function(model)
    expected = len(quantized_layers(detector))
    have = sum(node.op_type == "MultiThreshold" for node in model.graph.node)
    if have != expected:
        raise ExportError(f"tracing kept {have} of {expected} quantizers; the graph is not usable")
    return model


def _name_codes(model: onnx.ModelProto) -> None:
    """Call every code tensor ``<layer>.codes``, by which parity finds it."""
    names = {
        node.output[0]: node.attribute[0].s.decode() + SUFFIX
        for node in model.graph.node
        if node.op_type == "MultiThreshold"
    }
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the tracer notes about this machine (stack traces, paths)."""
    model.doc_string = ""
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "qmdd", ""
    graph = model.graph
    graph.doc_string = ""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
