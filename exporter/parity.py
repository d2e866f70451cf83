"""Parity: integer codes, logits and verdicts of the source model against the exported one.

The source is the checkpoint's own model in PyTorch, in evaluation mode: real quantizers, real
logarithms, real batch-norm parameters; nothing that the exporter made. The other side is the
bundle's file, in two tiers: *strict*, ONNX Runtime with its optimiser off, and *deployed*, as the
runtime that the bundle is made for runs it. Codes are compared as integers at every quantizer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from ..models import Codes, quantised_chains
from ..runtime.bundle import Bundle
from ..runtime.images import load_rgb
from ..runtime.native import library_path, require_library
from ..runtime.preprocess import prepare
from ..runtime.session import OnnxSession, Session
from ..runtime.sessions import NATIVE, ONNXRUNTIME, OPENVINO, QONNX, runtime_of
from .errors import ParityError
from .probes import Probed, layer_of, with_probes
from .source import find_source

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Report = Callable[[str, int, int], None]

TIERS = ("strict", "deployed")
#: Largest difference of two logits that counts as parity: the last bits of the head's float sums.
LOGIT_BAR = 1e-5
#: The same where every layer sums floats, each runtime in its own order (4e-6 was measured on a
#: trained full-precision ResNet-23; networks with larger logits differ by more).
FLOAT_LOGIT_BAR = 1e-4
#: Images compared at once, if of one size.
BATCH = 4


@dataclasses.dataclass
class LayerResult:
    """Codes compared and found different at one quantizer."""

    layer: str
    codes: int = 0
    wrong: int = 0


@dataclasses.dataclass
class TierResult:
    """Parity of one tier over all images; ``layers`` is empty in full precision.

    ``fallbacks``: a line for each layer that ``runtime`` silently runs in another precision than
    planned.
    """

    tier: str
    images: int = 0
    max_abs_logit_diff: float = 0.0
    flipped_verdicts: int = 0
    layers: list[LayerResult] = dataclasses.field(default_factory=list)
    quantized: bool = True
    runtime: str = ONNXRUNTIME
    fallbacks: list[str] = dataclasses.field(default_factory=list)

    @property
    def codes_compared(self) -> int:
        """Over all layers and images."""
        return sum(layer.codes for layer in self.layers)

    @property
    def wrong_codes(self) -> int:
        """Codes that differ, over all layers and images."""
        return sum(layer.wrong for layer in self.layers)

    @property
    def logit_bar(self) -> float:
        """:data:`LOGIT_BAR`, or in full precision :data:`FLOAT_LOGIT_BAR`."""
        return LOGIT_BAR if self.quantized else FLOAT_LOGIT_BAR

    @property
    def passed(self) -> bool:
        """Every code equal, logits within :attr:`logit_bar`, no verdict flipped, no fallback."""
        close = self.max_abs_logit_diff <= self.logit_bar
        compared = self.images > 0 and (self.codes_compared > 0 or not self.quantized)
        same = not self.wrong_codes and close and not self.flipped_verdicts
        return compared and same and not self.fallbacks

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and the manifest."""
        return {
            "tier": self.tier,
            "runtime": self.runtime,
            "images": self.images,
            "codes_compared": self.codes_compared,
            "wrong_codes": self.wrong_codes,
            "max_abs_logit_diff": self.max_abs_logit_diff,
            "logit_bar": self.logit_bar,
            "flipped_verdicts": self.flipped_verdicts,
            "fallbacks": list(self.fallbacks),
            "layers": [dataclasses.asdict(layer) for layer in self.layers],
        }


@dataclasses.dataclass
class VerifyResult:
    """What :func:`verify_bundle` found."""

    bundle: Path
    arch: str
    bits: int
    target: str
    model_bytes: int
    seconds: float
    parity: list[TierResult]

    @property
    def passed(self) -> bool:
        """Whether every tier passed."""
        return bool(self.parity) and all(tier.passed for tier in self.parity)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **plain,
            "bundle": str(self.bundle),
            "parity": [tier.to_dict() for tier in self.parity],
            "passed": self.passed,
        }


@contextlib.contextmanager
def recorded_codes(network: nn.Module) -> Iterator[dict[str, npt.NDArray[np.uint8]]]:
    """While open, every forward pass leaves its codes here, by layer: uint8 ``[N, C, H, W]``."""
    record: dict[str, npt.NDArray[np.uint8]] = {}
    chains = quantised_chains(network)

    def wrap(name: str, original: Callable[..., Codes]) -> Callable[..., Codes]:
        def codes(x: Any) -> Codes:
            found = original(x)
            record[name] = found.codes.cpu().numpy().astype(np.uint8)
            return found

        return codes

    for name, chain in chains:
        chain.codes = wrap(name, chain.codes)  # type: ignore[method-assign]
    try:
        yield record
    finally:
        for _, chain in chains:
            del chain.codes  # the class's method is seen again


def source_outputs(network: nn.Module, images: U8) -> tuple[F32, dict[str, U8]]:
    """Logits float32 ``[N]`` and codes of the source model on uint8 ``[N, 3, H, W]``."""
    import torch

    with torch.no_grad(), recorded_codes(network) as record:
        logits = network(torch.from_numpy(images)).cpu().numpy()
    return logits, dict(record)


def batches(paths: Sequence[Path], contract: dict[str, Any]) -> Iterator[U8]:
    """Images as the bundle takes them, uint8 ``[n, 3, H, W]``, neighbours of one size together."""
    waiting: list[U8] = []
    for path in paths:
        image = prepare(
            load_rgb(path),
            min_side=contract["min_side"],
            multiple=contract["multiple"],
            max_side=contract["max_side"],
        )
        if waiting and (waiting[0].shape != image.shape or len(waiting) == BATCH):
            yield np.stack(waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield np.stack(waiting)


def compare(
    network: nn.Module,
    model: Path,
    images: Sequence[Path],
    contract: dict[str, Any],
    tiers: Sequence[str] = TIERS,
    threads: int | None = None,
    report: Report | None = None,
    *,
    runtime: str = ONNXRUNTIME,
    plan: Sequence[Mapping[str, Any]] = (),
    native: Path | None = None,
) -> list[TierResult]:
    """Compare ``network`` with the ONNX file ``model`` on ``images``, in the given tiers.

    Args:
        runtime: what runs the deployed tier.
        plan: the layers of the model, as :class:`.plan.PlannedLayer` writes them; a runtime that
            can say what it built is held to it.
        native: the model for the native operators: one tier more, ``native``.

    Raises:
        ParityError: no images, an unknown tier, or a model whose layers are not the network's.
    """
    if not images:
        raise ParityError("parity needs at least one image; name some with --images")
    unknown = set(tiers) - set(TIERS)
    if unknown:
        raise ParityError(f"no tier {sorted(unknown)[0]!r}; there are {', '.join(TIERS)}")
    tiers = _tiers_in(runtime, tiers)
    sides = [
        _side(network, model, tier, runtime if tier == "deployed" else ONNXRUNTIME, threads)
        for tier in tiers
    ]
    if native is not None:
        sides.append(_side(network, native, NATIVE, NATIVE, threads))
    _audit([side.result for side in sides], model, threads, plan)
    done = 0
    for batch in batches(images, contract):
        logits, codes = source_outputs(network, batch)
        for side in sides:
            outputs = side.session.run(batch)
            if side.probed.last:
                outputs = {name: _first(found) for name, found in outputs.items()}
            _add(side.result, logits, codes, outputs, side.probed.names)
        done += len(batch)
        if report:
            report("parity", done, len(images))
    return [side.result for side in sides]


class _Side(NamedTuple):
    """One tier: the model that it runs, in a session, and what is found."""

    result: TierResult
    probed: Probed
    session: Session


def _side(network: nn.Module, model: Path, tier: str, runtime: str, threads: int | None) -> _Side:
    quantizers = [name for name, _ in quantised_chains(network)]
    probed = with_probes(model, quantized=bool(quantizers))
    layers = {layer_of(name): name for name in probed.names}
    if sorted(layers) != sorted(quantizers):
        raise ParityError(f"{model}: its quantizers are not those of the source checkpoint")
    # In the network's own order, whatever the graph's.
    probed = probed._replace(names=[layers[name] for name in quantizers])
    result = TierResult(
        tier,
        layers=[LayerResult(name) for name in quantizers],
        quantized=bool(quantizers),
        runtime=runtime,
    )
    return _Side(result, probed, _session(result, probed, threads))


def _tiers_in(runtime: str, tiers: Sequence[str]) -> Sequence[str]:
    """QONNX's operators are unknown to ONNX Runtime: its models have no strict tier."""
    if runtime != QONNX:
        return tiers
    if "deployed" not in tiers:
        raise ParityError("a QONNX model has no strict tier; leave --tier out")
    return ("deployed",)


def require_runtime(runtime: str) -> None:
    """:class:`SessionError`, with what to install, where ``runtime`` is missing."""
    if runtime == OPENVINO:
        from ..runtime.openvino_session import require_openvino

        require_openvino()
    elif runtime == QONNX:
        from .qonnx_session import require_qonnx

        require_qonnx()


def _session(result: TierResult, probed: Probed, threads: int | None) -> Session:
    model, outputs = probed.model, ["logit", *probed.names]
    if result.runtime == OPENVINO:
        from ..runtime.openvino_session import OpenvinoSession

        return OpenvinoSession(model, threads=threads, outputs=outputs)
    if result.runtime == QONNX:
        from .qonnx_session import QonnxSession

        return QonnxSession(model, outputs=outputs)
    library = require_library() if result.runtime == NATIVE else None
    return OnnxSession(
        model,
        optimize=result.tier != "strict",
        threads=threads,
        outputs=outputs,
        library=library,
    )


def _audit(
    results: Sequence[TierResult],
    model: Path,
    threads: int | None,
    plan: Sequence[Mapping[str, Any]],
) -> None:
    """Note what the file as shipped, without probes, runs in another precision than planned."""
    for result in results:
        if result.runtime == OPENVINO and plan:
            from ..runtime.openvino_audit import audit, fallbacks
            from ..runtime.openvino_session import OpenvinoSession

            result.fallbacks = fallbacks(audit(OpenvinoSession(model, threads=threads), plan))


def _add(
    result: TierResult,
    logits: F32,
    codes: dict[str, U8],
    outputs: dict[str, npt.NDArray[Any]],
    names: Sequence[str],
) -> None:
    theirs = outputs["logit"]
    _check_shape("logit", logits, theirs)
    with np.errstate(invalid="ignore"):  # equal infinities: their difference is no number
        difference = np.abs(logits.astype(np.float64) - theirs.astype(np.float64))
    # A NaN on either side must not pass: np.max hands it on, and NaN <= bar is false.
    result.max_abs_logit_diff = float(np.max([result.max_abs_logit_diff, difference.max()]))
    result.flipped_verdicts += int(((logits > 0) != (theirs > 0)).sum())
    result.images += len(logits)
    for layer, name in zip(result.layers, names, strict=True):
        ours = codes[layer.layer]
        _check_shape(layer.layer, ours, outputs[name])
        layer.codes += ours.size
        layer.wrong += int((ours != outputs[name]).sum())


def _first(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Channels-last codes as the source has them, ``[N, C, H, W]``; others as they are."""
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def _check_shape(what: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{what} has shape {list(theirs.shape)} in the exported model, {list(ours.shape)} in "
            "its source; export it again"
        )


def _runtime_of(bundle: Bundle, asked: str | None) -> str:
    """What runs the deployed tier: ``asked``, or what ``model.onnx`` was made for."""
    if asked is None:
        return bundle.runtime
    if bundle.runtime != QONNX:
        return runtime_of(bundle, asked)
    if asked is not None:
        raise ParityError(f"{bundle.path}: a QONNX model runs in qonnx alone; leave --runtime out")
    return QONNX


def _native_model(bundle: Bundle, tiers: Sequence[str], asked: str | None) -> Path | None:
    """The model for the native operators, where they are asked for, or built and nothing else is.

    It is what runs on such a machine, so it belongs to what is deployed.
    """
    if asked == NATIVE:
        require_library()
        return bundle.native_path
    if asked is not None or "deployed" not in tiers or library_path() is None:
        return None
    return bundle.native_path


def verify_bundle(
    bundle: Path,
    *,
    checkpoint: Path | None = None,
    module: str | None = None,
    images: Sequence[Path] = (),
    tiers: Sequence[str] = TIERS,
    threads: int | None = None,
    runtime: str | None = None,
    report: Report | None = None,
) -> VerifyResult:
    """Compare a bundle with its source checkpoint.

    Args:
        checkpoint: the source, a file; see :func:`find_source`.
        module: the source, a factory ``package.module:factory``.
        images: files to compare on; by default the samples that travel with the project.
        runtime: what runs the deployed tier; by default what the bundle was made for.
        report: called with ``("parity", done, total)``.

    Raises:
        BundleError: a damaged bundle. ParityError: nothing to compare with.
        CheckpointError, ImageError: as their rooms say.
    """
    from .samples import sample_images

    started = time.perf_counter()
    opened = Bundle.open(bundle)
    ran_by = _runtime_of(opened, runtime)
    require_runtime(ran_by)
    source = find_source(opened.manifest.get("source"), opened.path, checkpoint, module)
    results = compare(
        source.network,
        opened.model_path,
        list(images) or sample_images(),
        opened.manifest["input"],
        tiers,
        threads,
        report,
        runtime=ONNXRUNTIME if ran_by == NATIVE else ran_by,
        plan=opened.manifest.get("plan") or (),
        native=_native_model(opened, tiers, runtime),
    )
    return VerifyResult(
        bundle=opened.path,
        arch=opened.arch,
        bits=opened.bits,
        target=opened.target,
        model_bytes=opened.model_bytes,
        seconds=time.perf_counter() - started,
        parity=results,
    )
