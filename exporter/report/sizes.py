"""What a bundle takes, from full precision to packed, beside the paper's Table 4."""

from __future__ import annotations

import json
from typing import Any

from ...runtime.bundle import MODEL, NATIVE_MODEL, Bundle
from ...runtime.device.facts import Facts
from ...runtime.engine import ENGINE
from .read import whole


def sizes(bundle: Bundle) -> dict[str, Any]:
    """Bytes from the manifest, each with what it is; only what is known is listed."""
    size = Facts({"size": bundle.manifest.get("size")})
    files = bundle.manifest["files"]
    steps = [
        ("FP32", "all parameters of the full-precision twin", whole(size, "size", "fp32_bytes")),
        ("packed", "weights at their own width", whole(size, "size", "packed_weight_bytes")),
        (MODEL, "the file that is shipped", bundle.model_bytes),
    ]
    if NATIVE_MODEL in files:
        steps.append((NATIVE_MODEL, "for the native operators", files[NATIVE_MODEL]["bytes"]))
    steps += [
        ("engine", "built by TensorRT", entry["bytes"])
        for name, entry in files.items()
        if name.endswith(f"/{ENGINE}")
    ]
    full = whole(size, "size", "fp32_bytes")
    return {
        "steps": [
            {
                "what": what,
                "meaning": meaning,
                "bytes": count,
                "ratio": full / count if full and count else None,
            }
            for what, meaning, count in steps
            if count is not None
        ],
        "weights": whole(size, "size", "weights"),
        "multiply_adds": whole(size, "size", "multiply_adds"),
    }


def paper(bundle: Bundle) -> dict[str, Any]:
    """The paper's Table 4, and why ours is another where a row describes this very network.

    Needs torch. ``row`` is the name of that row, ``None`` where there is none.
    """
    from ...models.config import DetectorConfig
    from ...models.errors import ModelError
    from ...models.table4 import TABLE4, compare, published
    from ...models.table4_report import explain_ops, explain_storage, printed

    source = bundle.manifest.get("source")
    plain = source.get("config") if isinstance(source, dict) else None
    try:
        config = DetectorConfig.from_json(json.dumps(plain)) if plain else None
    except ModelError:
        config = None
    own = published(config, 256)
    compared = compare(own) if own else None
    return {
        "row": own.name if own else None,
        "rows": [
            {
                "name": row.name,
                "ops": printed(row.giga, row.half),
                "mb": printed(row.mb, row.mb_half),
            }
            for row in TABLE4
        ],
        "ours": {"ops": compared.ops, "mb": compared.mb} if compared else None,
        "explained": [explain_storage(compared), explain_ops(compared)] if compared else [],
    }
