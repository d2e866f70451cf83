"""Frozen detector to canonical ONNX, through ``torch.onnx.export(dynamo=True)``.

The tracer would decompose our quantizers (logarithm, comparisons, casts) into dozens of nodes that
no pass could recognise again. So a traced copy of the detector stands in: where the source has a
quantizer it puts one opaque node ``qmdd::MultiThreshold(x, thresholds)``, where the source has
integer weights it puts ``DequantizeLinear(codes, 1)``, and batch-norm, alpha, scale and step are
the two constants of ``acc * m + b`` that evaluation is defined by (DESIGN 3.1).

Any network of our layers is traced like the built-in ones. Which quantizer feeds a convolution, and
by which factor its result is multiplied, is found by running the source once and looking at what
each convolution is given.

The graph is traced at one size; nothing in it depends on the size but the NPR nodes, which
:mod:`.passes.fold_stem` removes, so the batch and both sides are dynamic afterwards.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models import Codes, Head, ModelError, QuantConv2d, quantised_chains, quantised_convolutions
from ..models.checkpoint import tables
from ..runtime.probes import SUFFIX
from .errors import ExportError
from .exactness import check_exact
from .magnitudes import check_magnitudes
from .multithreshold import DOMAIN, OPSET, add_function

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

    def __init__(self, layer: str, table: np.ndarray) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("table", torch.from_numpy(table.reshape(1, -1).copy()))

    def encode(self, x: Tensor) -> Codes:
        """Opaque codes of ``x``; what they stand for is folded into the convolution already."""
        codes = torch.onnx.ops.symbolic(
            f"{DOMAIN}::MultiThreshold",
            (x, self.table),
            {"layer": self.layer},
            dtype=torch.float32,
            shape=x.shape,
            version=OPSET,
        )
        return Codes(codes, self.table, self.table)


class _Use(NamedTuple):
    """What one call gives a convolution beside the codes."""

    step: Tensor
    zero: float
    gain: Tensor | None


class _OpaqueConv(nn.Module):
    """A convolution on integer weight codes, then ``acc * m + b``."""

    codes: Tensor
    multiplier: Tensor
    bias: Tensor
    one: Tensor

    def __init__(self, conv: QuantConv2d, use: _Use) -> None:
        super().__init__()
        frozen = conv.frozen()
        multiplier, bias = conv.affine(frozen, use.step, use.gain)
        small = int(frozen.codes.abs().max()) < 128
        self.stride, self.padding, self.groups = conv.stride, conv.padding, conv.groups
        self.zero = use.zero
        self.register_buffer("codes", frozen.codes.to(torch.int8 if small else torch.int16))
        self.register_buffer("one", torch.ones(()))
        self.register_buffer("multiplier", multiplier.detach().reshape(1, -1, 1, 1))
        self.register_buffer("bias", bias.detach().reshape(1, -1, 1, 1))

    def forward(self, x: Codes, gain: Tensor | None = None) -> Tensor:
        """``conv(code - zero, weight codes) * m + b``; step and gain are folded already."""
        weight = torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (self.codes, self.one),
            dtype=torch.float32,
            shape=self.codes.shape,
            version=CANONICAL_OPSET,
        )
        centred = x.codes - self.zero if self.zero else x.codes
        acc = F.conv2d(
            centred, weight, stride=self.stride, padding=self.padding, groups=self.groups
        )
        return acc * self.multiplier + self.bias


class _FloatHead(nn.Module):
    """The head in float32, as every runtime computes it: the logit's last bits are its own."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.prelu, self.fc = head.prelu, head.fc

    def forward(self, x: Tensor) -> Tensor:
        if self.prelu is not None:
            x = self.prelu(x)
        logit: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logit.squeeze(1)


def _uses(network: nn.Module) -> dict[str, _Use]:
    """What each quantised convolution is given, by its name, found by running ``network`` once.

    Raises:
        ExportError: a convolution that is not used, or used in two ways.
    """
    convs = [(n, c) for n, c in quantised_convolutions(network) if c.quantizer is not None]
    found: dict[str, _Use] = {}

    def note(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = arguments[0] if arguments else named["x"]
        gain = arguments[1] if len(arguments) > 1 else named.get("gain")
        if not isinstance(x, Codes):
            return  # the convolution itself says so
        use = _Use(x.step.detach(), float(x.zero), None if gain is None else gain.detach())
        before = found.setdefault(name, use)
        same_gain = (before.gain is None) == (use.gain is None) and (
            before.gain is None or use.gain is None or torch.equal(before.gain, use.gain)
        )
        if before.zero != use.zero or not torch.equal(before.step, use.step) or not same_gain:
            raise ExportError(
                f"{name}: used twice, with another step or gain each time; its scale cannot be "
                "folded: give each use a convolution of its own"
            )

    handles = [
        conv.register_forward_pre_hook(
            lambda _module, arguments, named, name=name: note(name, arguments, named),
            with_kwargs=True,
        )
        for name, conv in convs
    ]
    try:
        network(torch.zeros(1, 3, TRACE_SIDE, TRACE_SIDE, dtype=torch.uint8))
    finally:
        for handle in handles:
            handle.remove()
    unused = [name for name, _ in convs if name not in found]
    if unused:
        raise ExportError(f"{unused[0]}: never used when the network runs; remove it")
    return found


def _opaque_copy(network: nn.Module) -> nn.Module:
    """A copy of ``network`` whose quantizers and convolutions trace to the nodes above."""
    try:
        found = tables(network)
        uses = _uses(network)
    except ModelError as error:
        raise ExportError(str(error)) from error
    memo: dict[int, object] = {}
    for _, conv in quantised_convolutions(network):
        if conv.quantizer is not None:  # weights are large and replaced below: do not copy them
            memo[id(conv)] = conv
    traced: nn.Module = copy.deepcopy(network, memo)
    for name, conv in quantised_convolutions(network):
        if name in uses:
            traced.set_submodule(name, _OpaqueConv(conv, uses[name]))
    for name, chain in quantised_chains(traced):
        chain.quantizer = _OpaqueQuantizer(name, found[name])  # type: ignore[assignment]
    for path, head in list(traced.named_modules()):
        if isinstance(head, Head):
            traced.set_submodule(path, _FloatHead(head))
    return traced


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


def canonical_from_detector(detector: nn.Module) -> onnx.ModelProto:
    """Trace a network of our layers into canonical ONNX (opset 21, plus ``qmdd`` 1).

    Args:
        detector: takes uint8 images ``[N, 3, H, W]``, gives logits float32 ``[N]``.

    The model loads in any runtime: ``qmdd::MultiThreshold`` carries a body in standard operators.

    Raises:
        ExportError: a quantizer without a table, a network that cannot be run or traced.
    """
    image = torch.zeros(1, 3, TRACE_SIDE, TRACE_SIDE, dtype=torch.uint8)
    with _quiet(), torch.no_grad():
        traced = _opaque_copy(detector.eval())
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
            raise ExportError(f"tracing failed: {_root_cause(error)}") from error
    if program is None:
        raise ExportError("tracing failed: the exporter returned nothing")
    model: onnx.ModelProto = program.model_proto
    expected = len(quantised_chains(detector))
    have = sum(node.op_type == "MultiThreshold" for node in model.graph.node)
    if have != expected:
        raise ExportError(f"tracing kept {have} of {expected} quantizers; the graph is not usable")
    check_exact(model)
    check_magnitudes(model)
    _strip(model)
    _name_codes(model)
    add_function(model)
    return model


def _root_cause(error: BaseException) -> str:
    """What the tracer stumbled over, without its pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


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
