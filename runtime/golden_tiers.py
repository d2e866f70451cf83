"""What a comparison with golden results consists of: tiers, each with its bars and its session."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from .bundle import MODEL, NATIVE_MODEL, Bundle
from .engine import read_record
from .errors import BundleError, SessionError
from .golden import Golden
from .parity import LayerResult, TierResult
from .probes import SUFFIX, probed_model, probes_path
from .session import Session
from .session_memory import bytes_for
from .sessions import NATIVE, ONNXRUNTIME, TENSORRT, open_session
from .tiers import native_model, tier_session

#: Makes of a bundle, and shapes ``[N, 3, H, W]``, a session over a second engine that shows codes.
Rebuild = Callable[[Bundle, Sequence[tuple[int, ...]]], AbstractContextManager[Session]]

#: Tiers in TensorRT: the engine as deployed, and a second one that shows its codes.
ENGINE, CODES = "engine", "codes"
#: Least share of the codes that may differ in an engine: more than products and sums that are
#: rounded once flip in a ResNet-23 (docs/verify.md: *simulated*).
LEAST_BUDGET = 0.0005
#: Largest difference of two logits in an engine: three times what such rounding makes at most.
ENGINE_LOGIT_BAR = 0.02


@dataclasses.dataclass(frozen=True)
class Work:
    """One tier.

    Attributes:
        result: to be filled.
        golden: what to compare with.
        model: the file of the bundle that the tier is about.
        open: makes the session.
    """

    result: TierResult
    golden: Golden
    model: str
    open: Callable[[], AbstractContextManager[Session]]


def onnx_work(
    bundle: Bundle,
    golden: Golden,
    tiers: Sequence[str],
    asked: str | None,
    runtime: str,
    threads: int | None,
) -> list[Work]:
    """The tiers that run a file of the bundle.

    Args:
        tiers: *strict*, *deployed* or both.
        asked: the runtime that was asked for.
        runtime: the one that is used; in TensorRT *deployed* is none of these tiers.
        threads: of each session.

    Raises:
        SessionError: the native operators are asked for, and are not built.
    """
    work = []
    for tier in tiers:
        if tier == "strict":
            work.append((tier, MODEL, ONNXRUNTIME))
        elif runtime != TENSORRT:
            work.append((tier, MODEL, ONNXRUNTIME if runtime == NATIVE else runtime))
    if runtime != TENSORRT and native_model(bundle, tiers, asked) is not None:
        work.append((NATIVE, NATIVE_MODEL, NATIVE))
    return [_of_file(bundle, golden, *item, threads) for item in work]


def _of_file(
    bundle: Bundle, golden: Golden, tier: str, model: str, runtime: str, threads: int | None
) -> Work:
    probed = bool(golden.layers) and probes_path(bundle, model) is not None
    layers = golden.layers if probed else []
    result = TierResult(
        tier,
        layers=[LayerResult(layer) for layer in layers],
        quantized=bool(golden.layers),
        runtime=runtime,
        codes_seen=probed or not golden.layers,
    )

    pixels = max(image.shape[1] * image.shape[2] for image in golden.images)

    def opened() -> Session:
        # Read again when its turn comes: the bytes of one model at a time are held.
        data = probed_model(bundle, model) if probed else None
        outputs = ["logit", *(layer + SUFFIX for layer in layers)]
        if data is None:
            data = bundle.read(model)
        most = bytes_for(1, pixels)
        return tier_session(data, tier, runtime, threads, outputs, memory=most, shrink=True)

    return Work(result, golden, model, opened)


def engine_work(
    bundle: Bundle, golden: Golden, rebuild: Rebuild | None, code_budget: float | None
) -> tuple[list[Work], list[str]]:
    """The tiers in TensorRT, and what their reader must know.

    Args:
        rebuild: without it, or without probes, there is no tier *codes*.
        code_budget: share of the codes that may differ there; default: the bundle's own.

    Raises:
        BundleError: its manifest holds no share. SessionError: the engine takes no golden image.
    """
    quantized = bool(golden.layers)
    fits, notes = _fitting(bundle, golden)
    deployed = TierResult(
        ENGINE, quantized=quantized, runtime=TENSORRT, codes_seen=False, bar=ENGINE_LOGIT_BAR
    )
    work = [
        Work(
            deployed,
            fits,
            MODEL,
            lambda: open_session(bundle, runtime=TENSORRT, outputs=["logit"]),
        )
    ]
    if quantized and rebuild is not None and probes_path(bundle) is not None:
        shapes = [(1, *image.shape) for image in golden.images]
        seen = TierResult(
            CODES,
            layers=[LayerResult(layer) for layer in golden.layers],
            runtime=TENSORRT,
            code_budget=_own_budget(bundle) if code_budget is None else code_budget,
            bar=ENGINE_LOGIT_BAR,
        )
        build = rebuild
        work.append(Work(seen, golden, MODEL, lambda: build(bundle, shapes)))
    return work, notes


def _own_budget(bundle: Bundle) -> float:
    share = bundle.manifest.get("code_budget", LEAST_BUDGET)
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise BundleError(f"{bundle.path}: code_budget {share!r} is no share; export it anew")
    return float(share)


def _fitting(bundle: Bundle, golden: Golden) -> tuple[Golden, list[str]]:
    """The golden images of sizes that the engine was built for; a note if these are not all."""
    profile = read_record(bundle).profile
    low, high = profile["min"], profile["max"]
    fit = [
        index
        for index, image in enumerate(golden.images)
        if all(a <= b <= c for a, b, c in zip(low, (1, *image.shape), high, strict=True))
    ]
    sizes = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in golden.images)
    advice = "build it with --side MIN:BEST:MAX around these"
    if not fit:
        raise SessionError(
            f"{bundle.path}: its engine takes none of the golden images, one at a time ({sizes} "
            f"pixels); {advice}"
        )
    kept = Golden(
        [golden.images[index] for index in fit],
        golden.logits[fit],
        [golden.codes[index] for index in fit],
    )
    if len(fit) == len(golden.images):
        return kept, []
    return kept, [
        f"the engine takes {len(fit)} of the {len(golden.images)} golden images ({sizes} pixels): "
        f"tier {ENGINE} compares these; {advice} to compare all"
    ]
