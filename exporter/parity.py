"""Parity: integer codes, logits and verdicts of the source model against the exported one.

The source is the checkpoint's own model in PyTorch, in evaluation mode: real quantizers, real
logarithms, real batch-norm parameters; nothing that the exporter made. The other side is ONNX
Runtime on the bundle's file, in two tiers: *strict*, its optimiser off, and *deployed*, as shipped.
Codes are compared as integers at every quantizer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..models import Detector, quantized_layers
from ..models.checkpoint import Checkpoint
from ..models.zoo import builtin_checkpoints
from ..runtime.bundle import Bundle
from ..runtime.images import load_rgb
from ..runtime.preprocess import prepare
from ..runtime.session import OnnxSession
from .errors import ParityError
from .probes import layer_of, with_probes

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Report = Callable[[str, int, int], None]

TIERS = ("strict", "deployed")
#: Largest difference of two logits that counts as parity: the last bits of the head's float sums.
LOGIT_BAR = 1e-5
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
    """Parity of one tier over all images."""

    tier: str
    images: int = 0
    max_abs_logit_diff: float = 0.0
    flipped_verdicts: int = 0
    layers: list[LayerResult] = dataclasses.field(default_factory=list)

    @property
    def codes_compared(self) -> int:
        """Over all layers and images."""
        return sum(layer.codes for layer in self.layers)

    @property
    def wrong_codes(self) -> int:
        """Codes that differ, over all layers and images."""
        return sum(layer.wrong for layer in self.layers)

    @property
    def passed(self) -> bool:
        """Every code equal, logits within :data:`LOGIT_BAR`, no verdict flipped."""
        close = self.max_abs_logit_diff <= LOGIT_BAR
        compared = self.images > 0 and self.codes_compared > 0
        return compared and not self.wrong_codes and close and not self.flipped_verdicts

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and the manifest."""
        return {
            "tier": self.tier,
            "images": self.images,
            "codes_compared": self.codes_compared,
            "wrong_codes": self.wrong_codes,
            "max_abs_logit_diff": self.max_abs_logit_diff,
            "flipped_verdicts": self.flipped_verdicts,
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
def recorded_codes(detector: Detector) -> Iterator[dict[str, npt.NDArray[np.uint8]]]:
    """While open, every forward pass leaves its codes here, by layer: uint8 ``[N, C, H, W]``."""
    record: dict[str, npt.NDArray[np.uint8]] = {}
    chains = [(name, layer.act) for name, layer in quantized_layers(detector)]

    def wrap(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def codes(x: Any) -> Any:
            found = original(x)
            record[name] = found.cpu().numpy().astype(np.uint8)
            return found

        return codes

    for name, chain in chains:
        chain.codes = wrap(name, chain.codes)  # type: ignore[method-assign]
    try:
        yield record
    finally:
        for _, chain in chains:
            del chain.codes  # the class's method is seen again


def source_outputs(detector: Detector, images: U8) -> tuple[F32, dict[str, U8]]:
    """Logits float32 ``[N]`` and codes of the source model on uint8 ``[N, 3, H, W]``."""
    import torch

    with torch.no_grad(), recorded_codes(detector) as record:
        logits = detector(torch.from_numpy(images)).cpu().numpy()
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
    detector: Detector,
    model: Path,
    images: Sequence[Path],
    contract: dict[str, Any],
    tiers: Sequence[str] = TIERS,
    threads: int | None = None,
    report: Report | None = None,
) -> list[TierResult]:
    """Compare ``detector`` with the ONNX file ``model`` on ``images``, in the given tiers.

    Raises:
        ParityError: no images, an unknown tier, or a model whose layers are not the detector's.
    """
    if not images:
        raise ParityError("parity needs at least one image; name some with --images")
    unknown = set(tiers) - set(TIERS)
    if unknown:
        raise ParityError(f"no tier {sorted(unknown)[0]!r}; there are {', '.join(TIERS)}")
    probed, names = with_probes(model)
    expected = [name for name, _ in quantized_layers(detector)]
    if [layer_of(name) for name in names] != expected:
        raise ParityError(f"{model}: its quantizers are not those of the source checkpoint")
    results = [TierResult(tier, layers=[LayerResult(n) for n in expected]) for tier in tiers]
    sessions = [
        OnnxSession(probed, optimize=tier == "deployed", threads=threads, outputs=["logit", *names])
        for tier in tiers
    ]
    done = 0
    for batch in batches(images, contract):
        logits, codes = source_outputs(detector, batch)
        for result, session in zip(results, sessions, strict=True):
            _add(result, logits, codes, session.run(batch), names)
        done += len(batch)
        if report:
            report("parity", done, len(images))
    return results


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


def _check_shape(what: str, ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{what} has shape {list(theirs.shape)} in the exported model, {list(ours.shape)} in "
            "its source; export it again"
        )


def find_source(bundle: Bundle, checkpoint: Path | None) -> Checkpoint:
    """The checkpoint that ``bundle`` was exported from, recognised by its SHA-256.

    Args:
        checkpoint: the file to use; by default the built-in checkpoint with the recorded hash.

    Raises:
        ParityError: the file is another one, or none was given and none is built in.
    """
    source = bundle.manifest.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("sha256"), str):
        raise ParityError(
            f"{bundle.path}: its manifest does not say which checkpoint it was exported from; "
            "export it anew"
        )
    wanted = source["sha256"]
    if checkpoint is not None:
        found = Checkpoint(checkpoint)
        if found.sha256() != wanted:
            raise ParityError(
                f"{checkpoint}: not the checkpoint that {bundle.path} was exported from "
                f"(SHA-256 {found.sha256()[:12]}..., the manifest says {wanted[:12]}...)"
            )
        return found
    for path in builtin_checkpoints():
        candidate = Checkpoint(path)
        if candidate.sha256() == wanted:
            return candidate
    name = source.get("checkpoint", "a checkpoint")
    raise ParityError(
        f"{bundle.path}: exported from {name}, which is not built in; "
        "name the file with --checkpoint"
    )


def verify_bundle(
    bundle: Path,
    *,
    checkpoint: Path | None = None,
    images: Sequence[Path] = (),
    tiers: Sequence[str] = TIERS,
    threads: int | None = None,
    report: Report | None = None,
) -> VerifyResult:
    """Compare a bundle with its source checkpoint.

    Args:
        checkpoint: the source; see :func:`find_source`.
        images: files to compare on; by default the samples that travel with the project.
        report: called with ``("parity", done, total)``.

    Raises:
        BundleError: a damaged bundle. ParityError: nothing to compare with.
        CheckpointError, ImageError: as their rooms say.
    """
    from .samples import sample_images

    started = time.perf_counter()
    opened = Bundle.open(bundle)
    detector = find_source(opened, checkpoint).detector()
    results = compare(
        detector,
        opened.model_path,
        list(images) or sample_images(),
        opened.manifest["input"],
        tiers,
        threads,
        report,
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
