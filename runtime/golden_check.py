"""Does a bundle still compute what was trained? Its golden results say so, with no torch.

The source's codes, logits and verdicts of a few images travel in the bundle (:mod:`.golden`); what
the bundle's model makes of the same images, on this machine, is compared with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .bundle import Bundle
from .errors import BundleError, SessionError
from .golden import Golden, read_golden
from .golden_tiers import Rebuild, Work, engine_work, onnx_work
from .parity import GOLDEN, TIERS, VerifyResult
from .probes import are_last, channels_first, probes_path
from .sessions import TENSORRT, runtime_of
from .tiers import unplanned

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
    rebuild: Rebuild | None = None,
    code_budget: float | None = None,
    report: Report | None = None,
) -> VerifyResult:
    """Compare a bundle with its own golden results; one image and one session at a time.

    Args:
        tiers: of :data:`.parity.TIERS`. Where the native operators are built and the bundle has a
            model for them, *deployed* has a further one, ``native``. In TensorRT it is ``engine``,
            the engine as it is, and ``codes``, a second one that shows its codes.
        runtime: what runs the deployed tier; by default what would be used.
        rebuild: makes the second engine; without it there is no tier ``codes``.
        code_budget: share of the codes that may differ in the tier ``codes``, 0 in all others;
            default: the bundle's own.
        report: called with ``("golden", done, total)``.

    Raises:
        BundleError: a damaged bundle, or one without golden results.
        SessionError: no runtime for it here, or one that refuses the model.
        EngineError: an engine for another machine.
    """
    started = time.perf_counter()
    unknown = set(tiers) - set(TIERS)
    if unknown:
        raise SessionError(f"no tier {sorted(unknown)[0]!r}; there are {', '.join(TIERS)}")
    opened = Bundle.open(bundle)
    golden = _golden_of(opened)
    ran_by = runtime_of(opened, runtime)
    notes = [_NO_CODES] if golden.layers and probes_path(opened) is None else []
    work = onnx_work(opened, golden, tiers, runtime, ran_by, threads)
    if ran_by == TENSORRT and "deployed" in tiers:
        more, told = engine_work(opened, golden, rebuild, code_budget)
        work, notes = work + more, notes + told
    done, total = 0, sum(len(one.golden.images) for one in work)
    for one in work:
        try:
            for _ in compared(one):
                done += 1
                if report:
                    report("golden", done, total)
            plan = opened.manifest.get("plan") or ()
            one.result.fallbacks = unplanned(
                opened.path / one.model, one.result.runtime, plan, threads
            )
        except SessionError as error:
            raise SessionError(f"{opened.path}: {one.result.tier} tier: {error}") from error
    opened.check_unchanged()
    return VerifyResult(
        bundle=opened.path,
        arch=opened.arch,
        bits=opened.bits,
        target=opened.target,
        model_bytes=opened.model_bytes,
        seconds=time.perf_counter() - started,
        parity=[one.result for one in work],
        against=GOLDEN,
        notes=notes,
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


def compared(work: Work) -> Iterator[None]:
    """Fill the work's result, image by image.

    Raises:
        BundleError, SessionError: as :func:`check_golden`.
    """
    golden = work.golden
    with work.open() as session:
        last = are_last(session.metadata)
        for image, logit, codes in zip(golden.images, golden.logits, golden.codes, strict=True):
            found = session.run(image[np.newaxis])
            if last:
                found = channels_first(found)
            logits = found.pop("logit")
            # Golden codes are a row of codes, in C order, and so become those found.
            flat = {name: array.reshape(-1) for name, array in found.items()}
            work.result.add(np.array([logit]), codes, {"logit": logits, **flat})
            yield
