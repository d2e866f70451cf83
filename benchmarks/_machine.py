"""This machine's roofs for one thread, each measured by a small model in the runtime itself.

Nothing here is one of the layers that an estimate is later checked against: products are square
and large, element-wise chains and poolings have sizes of their own, and no figure is fitted to a
network. A rate is the best of many runs, because it is to be a peak.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qmdd.exporter.roofline import ANY, Roofs
from qmdd.runtime.machine import cache_bytes

#: Makes a runtime's callable of a model; the callable runs it once on an input.
Compile = Callable[[onnx.ModelProto], Callable[[np.ndarray], object]]

#: Channels, height, width and kernel of the products: large and nearly square ones, in and out of
#: the cache, none of them a layer of ResNet-23.
PRODUCTS = ((512, 16, 32, 1), (1024, 32, 32, 1), (192, 24, 24, 3), (384, 24, 24, 3))
#: Floats in a chain that stays in the second-level cache, and in an array that does not.
SMALL, LARGE = (1, 64, 48, 48), 1 << 24
#: Steps of the two chains of one operator whose difference counts.
CHAINS = (2, 10)
#: Operators whose rate is measured; of the others' rates each is one of these.
OPERATORS = ("Add", "PRelu", "MaxPool", "AveragePool")
QUANTIZERS = ("GreaterOrEqual", "QuantizeLinear")
#: Operations of one step of a chain on each number, where it is not one.
_OPERATIONS = {"Add": 2, "MaxPool": 9, "AveragePool": 4, "GreaterOrEqual": 3, "QuantizeLinear": 2}
_OPSET = 19


def onnxruntime_compile(model: onnx.ModelProto) -> Callable[[np.ndarray], object]:
    """One thread of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})


def openvino_options(*, profile: bool = False) -> dict[str, Any]:
    """One thread, and the settings with which a bundle's session stays exact."""
    from qmdd.runtime.openvino_session import EXACT

    return {
        **EXACT,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": profile,
    }


def openvino_compile(model: onnx.ModelProto) -> Callable[[np.ndarray], object]:
    """One thread of OpenVINO's CPU plugin."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", openvino_options()
    )
    request = compiled.create_infer_request()
    return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)


class _Graph:
    """A model with one input ``x`` that is built node by node."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = list(shape)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: Sequence[str], **attributes: object) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def model(self, outs: Sequence[str], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The graph with outputs ``outs``, the first of type ``kind``, the others floats."""
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT if index else kind, None)
                for index, name in enumerate(outs)
            ],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])


def best_seconds(run: Callable[[], object], budget: float = 0.4) -> float:
    """The shortest of the runs that fit into ``budget`` seconds."""
    run()
    ends, best = time.perf_counter() + budget, np.inf
    while (started := time.perf_counter()) < ends:
        run()
        best = min(best, time.perf_counter() - started)
    return float(best)


def product_rates(compile_: Compile, *, integer: bool) -> list[float]:
    """Operations a second of each of :data:`PRODUCTS`.

    They are convolutions; what the codes cost to make cancels in the difference of three and one.
    """
    rates = []
    for channels, height, width, size in PRODUCTS:
        operations = 2 * (channels * size) ** 2 * height * width
        kernel = (channels, channels, size, size)
        shape = (1, channels, height, width)
        one, three = (
            _product_seconds(compile_, shape, kernel, count, integer=integer) for count in (1, 3)
        )
        rates.append(2 * operations / max(three - one, 1e-9))
    return rates


def _product_seconds(
    compile_: Compile,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    count: int,
    *,
    integer: bool,
) -> float:
    rng = np.random.default_rng(0)
    graph, x, outs = _Graph(shape), "x", []
    if integer:
        one = graph.constant(np.array(1.0, dtype=np.float32))
        zero = graph.constant(np.array(0, dtype=np.int8))
        x = graph.add("QuantizeLinear", ["x", one, zero])
        x = graph.add("DequantizeLinear", [x, one, zero])
    for _ in range(count):
        if integer:
            codes = graph.constant(rng.integers(-1, 2, kernel).astype(np.int8))
            weight = graph.add("DequantizeLinear", [codes, one])
        else:
            weight = graph.constant(rng.standard_normal(kernel).astype(np.float32))
        outs.append(graph.add("Conv", [x, weight], pads=[kernel[2] // 2] * 4))
    run = compile_(graph.model(outs))
    image = rng.integers(0, 4, shape).astype(np.float32)
    return best_seconds(lambda: run(image))


def operator_rate(compile_: Compile, op: str) -> float:
    """Operations on single floats a second of ``op`` in a chain that stays in the cache.

    The chain stands behind a convolution, so that its numbers lie in memory as in a network; what
    the convolution and the ends of the chain cost cancels in the difference of two lengths. Numbers
    are positive: this is the rate at which no branch is mispredicted.
    """
    short, long = (_chain_seconds(compile_, op, count) for count in CHAINS)
    numbers = _OPERATIONS.get(op, 1) * math.prod(SMALL)
    if long - short < 0.1 * long:  # lost in noise: the long chain with all that stands around it
        return CHAINS[1] * numbers / long
    return (CHAINS[1] - CHAINS[0]) * numbers / (long - short)


def _chain_seconds(compile_: Compile, op: str, count: int) -> float:
    graph = _Graph(SMALL)
    channels = SMALL[1]
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    source = graph.add("Conv", ["x", graph.constant(eye)])
    shortcut = graph.add("Conv", ["x", graph.constant(0.5 * eye)])
    value, total, kind = source, "", TensorProto.FLOAT
    steps = np.linspace(0.5, 1.5, channels, dtype=np.float32).reshape(1, -1, 1, 1)
    for index in range(count):
        operand = graph.constant(steps[0] if op == "PRelu" else steps + np.float32(index))
        if op == "MaxPool":
            value = graph.add(op, [value], kernel_shape=[3, 3], pads=[1] * 4)
        elif op == "AveragePool":
            value = graph.add(op, [value], kernel_shape=[2, 2], pads=[0, 0, 1, 1])
        elif op == "PRelu":
            value = graph.add(op, [value, operand])
        elif op == "Add":  # a weighted sum, alpha * x + shortcut; sums of constants would be folded
            value = graph.add(op, [graph.add("Mul", [value, operand]), shortcut])
        elif op == "GreaterOrEqual":  # with the cast and sum in bytes that make a code of it
            kind = TensorProto.UINT8
            one = graph.add("Cast", [graph.add(op, [source, operand])], to=kind)
            value = total = graph.add("Add", [total, one]) if total else one
        else:  # to codes and back; the step differs, or both would be dropped
            step = graph.constant(np.array(0.5 + index, dtype=np.float32))
            zero = graph.constant(np.array(0, dtype=np.int8))
            codes = graph.add("QuantizeLinear", [value, step, zero])
            value = graph.add("DequantizeLinear", [codes, step, zero])
    # Who is read by two is not fused into its convolution, as in a network with shortcuts.
    run = compile_(graph.model([value, source, shortcut], kind))
    x = np.random.default_rng(0).uniform(1, 2, SMALL).astype(np.float32)
    return best_seconds(lambda: run(x))


def start_seconds(compile_: Compile) -> float:
    """Seconds that one more kernel costs: tiny convolutions in a row, 64 against 32."""
    found = []
    for count in (32, 64):
        graph, value = _Graph((1, 16, 4, 4)), "x"
        weight = graph.constant(np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1))
        for _ in range(count):
            value = graph.add("Conv", [value, weight])
        run = compile_(graph.model([value]))
        x = np.ones(graph.shape, dtype=np.float32)
        found.append(best_seconds(lambda run=run, x=x: run(x)))
    return max(0.0, found[1] - found[0]) / 32


def bandwidths() -> tuple[float, float]:
    """Bytes a second out of memory (reading) and in the cache (reading and writing), by numpy."""
    large = np.ones(LARGE, dtype=np.float32)
    small, copy = np.ones(SMALL, dtype=np.float32), np.empty(SMALL, dtype=np.float32)
    reading = large.nbytes / best_seconds(large.max)
    copying = 2 * small.nbytes / best_seconds(lambda: np.copyto(copy, small))
    return reading, copying


@dataclasses.dataclass(frozen=True)
class Machine:
    """What was measured of one runtime.

    Attributes:
        products: operations a second of each of :data:`PRODUCTS`, by width.
        elementwise: operations on single floats a second, by operator.
        reading, copying: bytes a second out of memory, and in the cache.
        start: seconds that one more kernel costs.
    """

    products: dict[str, list[float]]
    elementwise: dict[str, float]
    reading: float
    copying: float
    start: float

    def roofs(self, name: str, choose: Callable[[list[float]], float]) -> Roofs:
        """Roofs whose products run at what ``choose`` takes of the rates measured."""
        products = {width: choose(rates) for width, rates in self.products.items()}
        rates = self.elementwise
        return Roofs(
            name=name,
            products=products,
            floats=products["fp32"],
            elementwise={
                **rates,
                ANY: rates["Add"],
                "Cast": rates.get("GreaterOrEqual", rates["Add"]),
                "GlobalAveragePool": rates["AveragePool"],
            },
            bandwidth=self.reading,
            cache_bytes=cache_bytes(),
            cache_bandwidth=self.copying,
            start=self.start,
        )

    def faster(self, other: Machine) -> Machine:
        """Of each rate the higher one."""
        return Machine(
            {
                width: [max(pair) for pair in zip(rates, other.products[width], strict=True)]
                for width, rates in self.products.items()
            },
            {op: max(rate, other.elementwise[op]) for op, rate in self.elementwise.items()},
            max(self.reading, other.reading),
            max(self.copying, other.copying),
            min(self.start, other.start),
        )

    def to_dict(self) -> dict[str, Any]:
        """In readable units."""
        return {
            "products_gmac_s": {
                width: [round(rate / 2e9, 1) for rate in rates]
                for width, rates in self.products.items()
            },
            "elementwise_g_s": {op: round(v / 1e9, 2) for op, v in self.elementwise.items()},
            "memory_gb_s": round(self.reading / 1e9, 1),
            "cache_gb_s": round(self.copying / 1e9, 1),
            "start_us": round(1e6 * self.start, 2),
        }


def measure(compile_: Compile, *, quantized: bool) -> Machine:
    """All that an estimate needs to know of this machine under one runtime."""
    reading, copying = bandwidths()
    operators = (*OPERATORS, *QUANTIZERS) if quantized else OPERATORS
    widths = ("fp32", "int8") if quantized else ("fp32",)
    return Machine(
        {width: product_rates(compile_, integer=width == "int8") for width in widths},
        {op: operator_rate(compile_, op) for op in operators},
        reading,
        copying,
        start_seconds(compile_),
    )
