"""Bundles that are right in all, and whose model takes as much memory as it is given, or more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qmdd.runtime.machine import usable_cores
from qmdd.runtime.session_memory import LEAST_BYTES, bytes_for

from .bundles import with_model
from .case import Case

if TYPE_CHECKING:
    import onnx

#: What is left of a bound for the model itself.
_SHARE = 0.7
#: Computed while it is loaded, beside the 208 MiB of the bundle's own. Not all that it may: with
#: that verify, which imports torch, takes 1.2 GiB (docs/hardening.md).
_CONSTANTS = 144 << 20
_BUNDLE = "{}/bundle"


def greedy_cases(bundle: Path) -> Iterator[Case]:
    """Every case, each made from ``bundle``: commands that run a model, at bounds and beyond."""
    at_once = bytes_for(usable_cores())

    def case(name: str, command: Sequence[str], most: int, end: int, says: str) -> Iterator[Case]:
        def make(what: str, size: int, folded: int = 0) -> Case:
            within = size < most
            return Case(
                f"a model that takes {what}, {name}",
                lambda folder: with_model(bundle, folder, _greedy(bundle, size, folded)),
                command,
                # In the strict tier nothing is computed while it is loaded, but all while it runs.
                (0, end) if folded else (0,) if within else (end,),
                "" if within else says,
            )

        share = round(most * _SHARE)
        yield make("all it may", share)
        yield make("more than it may", most + (256 << 20))
        yield make("all it may and has constants", share, _CONSTANTS)

    yield Case(
        "a model of 2 GB of constants in half a megabyte",
        lambda folder: with_model(bundle, folder, _greedy(bundle, 1 << 20, 1 << 28, 8)),
        ("detect", _BUNDLE, "{}/image.png"),
        (0, 1),
    )
    yield Case(
        "a model of 250 MiB of weights",
        lambda folder: with_model(bundle, folder, _heavy(bundle, 250 << 20)),
        ("detect", _BUNDLE, "{}/image.png"),
        (1,),
        "cannot be loaded within",
    )
    told = "needs more than"
    yield from case("detect", ("detect", _BUNDLE, "{}/image.png"), at_once, 1, told)
    yield from case("detect --threads 1", _threads("detect", "{}/image.png"), LEAST_BYTES, 1, told)
    yield from case("scan", ("scan", _BUNDLE, "{}", "-o", "{}/out"), at_once, 1, told)
    yield from case("verify --golden", ("verify", _BUNDLE, "--golden"), LEAST_BYTES, 1, told)
    yield from case("verify", ("verify", _BUNDLE), LEAST_BYTES, 1, told)
    # A report says why it has no scores, and the rest.
    report = ("report", _BUNDLE, "--golden", "-o", "{}/out.html")
    yield from case("report", report, LEAST_BYTES, 0, "")
    bench = ("bench", _BUNDLE, "--no-twin", "--batch", "1", "--threads", "1", "--seconds", "1")
    yield from case("bench", bench, LEAST_BYTES, 1, told)


def _threads(command: str, images: str) -> tuple[str, ...]:
    return (command, _BUNDLE, images, "--threads", "1")


def _greedy(bundle: Path, size: int, folded: int, times: int = 1) -> onnx.ModelProto:
    """The bundle's model, and beside it what its logit depends on.

    Args:
        size: of a matrix that is made of the image and two vectors, in bytes.
        folded: of each of ``times`` matrices that are made of constants alone.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(bundle / "model.onnx")
    side = int((size / 4) ** 0.5)
    for node in model.graph.node:
        node.output[:] = ["honest" if name == "logit" else name for name in node.output]
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.zeros((side, 1), "f4"), "greedy_column"),
            numpy_helper.from_array(np.zeros((1, side), "f4"), "greedy_row"),
            numpy_helper.from_array(np.zeros((), "f4"), "greedy_zero"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["image"], ["greedy_floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["greedy_floats"], ["greedy_mean"], keepdims=0),
            helper.make_node("Mul", ["greedy_mean", "greedy_zero"], ["greedy_nought"]),
            helper.make_node("Cast", ["greedy_nought"], ["greedy_place"], to=TensorProto.INT64),
            helper.make_node("Add", ["greedy_nought", "greedy_column"], ["greedy_long"]),
            helper.make_node("Add", ["greedy_long", "greedy_row"], ["greedy_matrix"]),
            helper.make_node("ReduceMax", ["greedy_matrix"], ["greedy_most"], keepdims=0),
        ]
    )
    terms = ["honest", "greedy_most"]
    for index in range(times if folded else 0):
        side = int((folded / 4) ** 0.5)
        name = f"greedy_{index}"
        model.graph.initializer.extend(
            [
                numpy_helper.from_array(np.full((side, 1), index, "f4"), name + "_column"),
                numpy_helper.from_array(np.full((1, side), -index, "f4"), name + "_row"),
            ]
        )
        model.graph.node.extend(
            [
                helper.make_node("Add", [name + "_column", name + "_row"], [name]),
                # The image's share, or all of it would be one constant.
                helper.make_node("Gather", [name, "greedy_place"], [name + "_part"]),
                helper.make_node("ReduceMax", [name + "_part"], [name + "_most"], keepdims=0),
            ]
        )
        terms.append(name + "_most")
    model.graph.node.append(helper.make_node("Sum", terms, ["logit"]))
    return model


def _heavy(bundle: Path, size: int) -> onnx.ModelProto:
    """The bundle's model, and beside it a convolution with ``size`` bytes of weights."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(bundle / "model.onnx")
    for node in model.graph.node:
        node.output[:] = ["honest" if name == "logit" else name for name in node.output]
    weights = np.zeros((size // (4 * 3 * 9), 3, 3, 3), "f4")
    model.graph.initializer.append(numpy_helper.from_array(weights, "heavy_weights"))
    model.graph.node.extend(
        [
            helper.make_node("Cast", ["image"], ["heavy_floats"], to=TensorProto.FLOAT),
            helper.make_node(
                "Conv", ["heavy_floats", "heavy_weights"], ["heavy"], strides=[16, 16]
            ),
            helper.make_node("ReduceMax", ["heavy"], ["heavy_most"], keepdims=0),
            helper.make_node("Sum", ["honest", "heavy_most"], ["logit"]),
        ]
    )
    return model
