"""How many codes may differ in an engine: a share that no honest rounding reaches. *Simulated*.

TensorRT compiles products and sums into kernels of its own and may round ``acc * m + b`` once where
the model rounds twice: now and then a code flips, and what flips goes on through the network. How
far it goes is the network's own. A real fault, sums in FP16, flips nine times as many at least
(docs/verify.md). So the budget is a part of what sums in FP16 flip, in this very network, on its
golden images; that is simulated here, in ONNX Runtime, when a bundle is exported.
"""

from __future__ import annotations

from ..runtime.bundle import MODEL
from ..runtime.golden import Golden
from ..runtime.golden_check import compared
from ..runtime.golden_tiers import LEAST_BUDGET, Work
from ..runtime.parity import LayerResult, TierResult
from ..runtime.probes import SUFFIX
from ..runtime.session import OnnxSession

#: The budget is what FP16 flips over this.
PART = 3


def code_budget(probed: bytes, golden: Golden) -> float:
    """The share of codes that may differ in an engine of a model for TensorRT.

    Args:
        probed: the model with its code tensors as outputs.
        golden: what to compare with.
    """
    layers = golden.layers
    result = TierResult("sums in FP16", layers=[LayerResult(layer) for layer in layers])
    outputs = ["logit", *(layer + SUFFIX for layer in layers)]
    work = Work(
        result, golden, MODEL, lambda: OnnxSession(halved(probed), optimize=False, outputs=outputs)
    )
    for _ in compared(work):
        pass
    return max(LEAST_BUDGET, result.wrong_codes / result.codes_compared / PART)


def halved(data: bytes) -> bytes:
    """The model with every sum of a product in FP16."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(data)
    products = {node.output[0] for node in model.graph.node if node.op_type == "Mul"}
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Add" and products & set(node.input):
            name = node.output[0]
            node.output[0] = f"{name}.whole"
            half = f"{name}.half"
            nodes.append(helper.make_node("Cast", [node.output[0]], [half], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())
