"""How many codes flip where ``acc * m + b`` is contracted to a fused multiply-add. *Simulated*.

TensorRT compiles products and sums into kernels of its own and may round them once instead of
twice. Here every addition of a product in the model for TensorRT is computed so: product and sum in
float64 (the product is exact there), rounded to float32 once. What flips a code goes on through the
network, as it would on a device. ONNX Runtime runs both models, its optimiser off.

The budget of ``qmdd verify --golden`` for codes on TensorRT rests on this.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from _record import record
from onnx import TensorProto, helper
from target_parity import spread

from qmdd.exporter.code_budget import halved
from qmdd.exporter.export import CONTRACT, export_bundle
from qmdd.exporter.parity import batches
from qmdd.exporter.probes import with_probes
from qmdd.exporter.samples import sample_images
from qmdd.models.zoo import builtin_checkpoints
from qmdd.runtime.session import OnnxSession

TARGET = "orin-nano"


def contracted(data: bytes) -> tuple[bytes, int]:
    """The model with every sum of a product rounded once; and how many there are."""
    model = onnx.load_from_string(data)
    made = {node.output[0]: node for node in model.graph.node}
    nodes, count = [], 0
    for node in model.graph.node:
        products = [name for name in node.input if made.get(name) and made[name].op_type == "Mul"]
        if node.op_type != "Add" or not products:
            nodes.append(node)
            continue
        product = made[products[-1]]
        other = next(name for name in node.input if name != products[-1])
        count += 1
        wide = []
        for place, name in enumerate([*product.input, other]):
            wide.append(f"{node.output[0]}.wide{place}")
            nodes.append(helper.make_node("Cast", [name], [wide[-1]], to=TensorProto.DOUBLE))
        inner, outer = f"{node.output[0]}.product", f"{node.output[0]}.sum"
        nodes.append(helper.make_node("Mul", wide[:2], [inner]))
        nodes.append(helper.make_node("Add", [inner, wide[2]], [outer]))
        nodes.append(helper.make_node("Cast", [outer], [node.output[0]], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString()), count


def compared(
    plain: OnnxSession, other: OnnxSession, names: list[str], images: list[Path]
) -> dict[str, Any]:
    """Both models on the same images; the shares that differ, over all and by image."""
    codes = wrong = flipped = 0
    shares, logits = [], []
    for batch in batches(images, dict(CONTRACT)):
        for image in batch:
            ours, theirs = plain.run(image[None]), other.run(image[None])
            bad = sum(int((ours[name] != theirs[name]).sum()) for name in names)
            all_codes = sum(ours[name].size for name in names)
            a, b = (float(np.asarray(found["logit"], np.float64)[0]) for found in (ours, theirs))
            codes, wrong, flipped = codes + all_codes, wrong + bad, flipped + ((a > 0) != (b > 0))
            shares.append(bad / all_codes)
            logits.append(abs(a - b))
    return {
        "images": len(shares),
        "codes": codes,
        "wrong_codes": wrong,
        "share": wrong / codes,
        "least_share_of_an_image": min(shares),
        "largest_share_of_an_image": max(shares),
        "images_without_a_wrong_code": sum(share == 0 for share in shares),
        "flipped_verdicts": flipped,
        "largest_logit_difference": max(logits),
    }


def simulated(checkpoint: Path, images: list[Path]) -> dict[str, Any]:
    """Sums rounded once on all images; sums in FP16 on the samples."""
    with tempfile.TemporaryDirectory() as name:
        bundle = export_bundle(checkpoint, Path(name) / "b", target=TARGET, verify=False).bundle
        probed = with_probes(bundle / "model.onnx")
    fused, count = contracted(probed.model)
    plain = OnnxSession(probed.model, optimize=False)
    found = {
        "checkpoint": checkpoint.stem,
        "contracted_sums": count,
        "contracted": compared(plain, OnnxSession(fused, optimize=False), probed.names, images),
        "sums_in_fp16": compared(
            plain, OnnxSession(halved(probed.model), optimize=False), probed.names, sample_images()
        ),
    }
    print(found, flush=True)
    return found


def main() -> None:
    """Simulate each built-in checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("QMDD_DATA"), help="or QMDD_DATA")
    parser.add_argument("--images", type=int, default=64, help="of DATA/test, beside the samples")
    arguments = parser.parse_args()
    images = sample_images()
    if arguments.data:
        images += spread(Path(arguments.data) / "test", arguments.images)
    rows = [simulated(path, images) for path in builtin_checkpoints()]
    record("contraction", {"label": "simulated", "target": TARGET, "rows": rows})


if __name__ == "__main__":
    main()
