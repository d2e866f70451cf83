"""Does a bundle still compute what was trained? Its golden results say so, with no torch.

The source's codes, logits and verdicts of a few images travel in the bundle (:mod:`.golden`); what
the bundle's model makes of the same images, on this machine, is compared with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .bundle import MODEL, NATIVE_MODEL, Bundle
from .errors import BundleError, SessionError
from .golden import Golden, read_golden
from .parity import GOLDEN, TIERS, LayerResult, TierResult, VerifyResult
from .probes import SUFFIX, are_last, channels_first, probed_model
from .sessions import NATIVE, ONNXRUNTIME, runtime_of
from .tiers import native_model, tier_session, unplanned

Report = Callable[[str, int, int], None]

_NO_CODES = (
    "the bundle holds no probes of its codes (an older qmdd exported it): logits and verdicts "
    "were compared, codes were not"
)


def check_golden(
    bundle: Path,
    *,
    tiers: Sequence[str] = TIERS,
    runtime: str | None = None,
    threads: int | None = None,
    report: Report | None = None,
) -> VerifyResult:
    """Compare a bundle with its own golden results; one image and one session at a time.

    Args:
        tiers: of :data:`.parity.TIERS`. Where the native operators are built and the bundle has a
            model for them, *deployed* has a further one, ``native``.
        runtime: what runs the deployed tier; by default what the bundle was made for.
        report: called with ``("golden", done, total)``.

    Raises:
        BundleError: a damaged bundle, or one without golden results.
        SessionError: no runtime for it here, or one that refuses the model.
    """
    started = time.perf_counter()
    opened = Bundle.open(bundle)
    golden = _golden_of(opened)
    ran_by = runtime_of(opened, runtime)
    plain = ONNXRUNTIME if ran_by == NATIVE else ran_by
    unknown = set(tiers) - set(TIERS)
    if unknown:
        raise SessionError(f"no tier {sorted(unknown)[0]!r}; there are {', '.join(TIERS)}")
    work = [(tier, MODEL, ONNXRUNTIME if tier == "strict" else plain) for tier in tiers]
    if native_model(opened, tiers, runtime) is not None:
        work.append((NATIVE, NATIVE_MODEL, NATIVE))
    total = len(work) * len(golden.images)
    results: list[TierResult] = []
    for tier, model, by in work:
        result = TierResult(tier, quantized=bool(golden.layers), runtime=by)
        try:
            for _ in _compared(opened, model, golden, result, threads):
                if report:
                    done = sum(found.images for found in results) + result.images
                    report("golden", done, total)
            plan = opened.manifest.get("plan") or ()
            result.fallbacks = unplanned(opened.path / model, by, plan, threads)
        except SessionError as error:
            raise SessionError(f"{opened.path}: {tier} tier: {error}") from error
        results.append(result)
    return VerifyResult(
        bundle=opened.path,
        arch=opened.arch,
        bits=opened.bits,
        target=opened.target,
        model_bytes=opened.model_bytes,
        seconds=time.perf_counter() - started,
        parity=results,
        against=GOLDEN,
        notes=[] if all(result.codes_seen for result in results) else [_NO_CODES],
    )


def _golden_of(bundle: Bundle) -> Golden:
    path = bundle.golden_path
    if path is None:
        raise BundleError(
            f"{bundle.path}: holds no golden results to compare with; export the checkpoint anew, "
            "or compare with it where torch is"
        )
    golden = read_golden(path)
    if not golden.layers and bundle.bits != 32:
        raise BundleError(f"{path}: no codes of a model of {bundle.bits} bits; export it anew")
    return golden


def _compared(
    bundle: Bundle, model: str, golden: Golden, result: TierResult, threads: int | None
) -> Iterator[None]:
    """Fill ``result``, image by image."""
    probed = probed_model(bundle, model) if golden.layers else None
    outputs = ["logit"]
    if probed is not None:
        result.layers = [LayerResult(layer) for layer in golden.layers]
        outputs += [layer + SUFFIX for layer in golden.layers]
    result.codes_seen = probed is not None or not golden.layers
    session = tier_session(
        bundle.path / model if probed is None else probed,
        result.tier,
        result.runtime,
        threads,
        outputs,
    )
    last = are_last(session.metadata)
    for image, logit, codes in zip(golden.images, golden.logits, golden.codes, strict=True):
        found = session.run(image[np.newaxis])
        if last:
            found = channels_first(found)
        logits = found.pop("logit")
        flat = {name: array.reshape(-1) for name, array in found.items()}
        ours = {layer: array.reshape(-1) for layer, array in codes.items()}
        result.add(np.array([logit]), ours, {"logit": logits, **flat})
        yield
