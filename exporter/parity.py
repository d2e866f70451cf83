"""Parity: integer codes, logits and verdicts of the source model against the exported one.

The source is the checkpoint's own model in PyTorch, in evaluation mode: real quantizers, real
logarithms, real batch-norm parameters; nothing that the exporter made. The other side is the
bundle's file, in two tiers: *strict*, ONNX Runtime with its optimiser off, and *deployed*, as the
runtime that the bundle is made for runs it. Codes are compared as integers at every quantizer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ..models import Codes, quantised_chains
from ..runtime.bundle import Bundle
from ..runtime.images import load_rgb
from ..runtime.parity import TIERS, LayerResult, TierResult, VerifyResult
from ..runtime.preprocess import prepare
from ..runtime.probes import channels_first, layer_of
from ..runtime.session import Session
from ..runtime.session_memory import MOST_PIXELS, Pool, bytes_for
from ..runtime.sessions import NATIVE, ONNXRUNTIME, OPENVINO, QONNX, TENSORRT, runtime_of
from ..runtime.tiers import native_model, tier_session, unplanned
from .errors import ParityError
from .probes import Probed, with_probes
from .source import find_source

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Report = Callable[[str, int, int], None]

#: Images compared at once, if of one size, and their pixels, if that is more than one image: that
#: bounds what the source and each of the tiers take.
BATCH, BATCH_PIXELS = 4, 256 * 256


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
    most = BATCH
    for path in paths:
        image = prepare(
            load_rgb(path),
            min_side=contract["min_side"],
            multiple=contract["multiple"],
            max_side=contract["max_side"],
        )
        if waiting and (waiting[0].shape != image.shape or len(waiting) == most):
            yield np.stack(waiting)
            waiting = []
        most = max(1, min(BATCH, BATCH_PIXELS // (image.shape[1] * image.shape[2])))
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
    pool = Pool(bytes_for())
    run_by = {"deployed": runtime}
    sides = [
        side_of(network, model, tier, run_by.get(tier, ONNXRUNTIME), threads, pool)
        for tier in tiers
    ]
    if native is not None:
        sides.append(side_of(network, native, NATIVE, NATIVE, threads, pool))
    for side in sides:
        side.result.fallbacks = unplanned(model, side.result.runtime, plan, threads)
    done = 0
    for batch in batches(images, contract):
        logits, codes = source_outputs(network, batch)
        for side in sides:
            side.add(batch, logits, codes)
        done += len(batch)
        if report:
            report("parity", done, len(images))
    return [side.result for side in sides]


class Side:
    """One tier: the model that it runs, in a session, and what is found.

    Attributes:
        result: what is found.
    """

    def __init__(self, result: TierResult, probed: Probed, threads: int | None, pool: Pool) -> None:
        self.result = result
        self.probed = probed
        self._threads = threads
        self._pool = pool
        self._open()

    def _open(self) -> None:
        self._memory = self._pool.most
        self._session = _session(self.result, self.probed, self._threads, self._pool)

    def add(self, batch: U8, logits: F32, codes: Mapping[str, U8]) -> None:
        """Run images uint8 ``[N, 3, H, W]`` and compare with the source's logits and codes."""
        count, _, height, width = batch.shape
        if bytes_for(count, height * width) > self._memory:
            # At once as much as the largest images need, or each that is larger would open it anew.
            self._pool.allow(bytes_for(count, MOST_PIXELS))
            self.close()
            self._open()
        outputs = self._session.run(batch)
        if self.probed.last:
            outputs = channels_first(outputs)
        self.result.add(logits, codes, outputs)

    def close(self) -> None:
        """Give back what its session holds beside this process's memory."""
        self._session.close()


def side_of(
    network: nn.Module,
    model: Path,
    tier: str,
    runtime: str,
    threads: int | None,
    pool: Pool | None = None,
) -> Side:
    """A tier of ``model`` that is to be compared with ``network``.

    Args:
        pool: memory that it shares with other sides.

    Raises:
        ParityError: its layers are not the network's. SessionError: it cannot be run.
    """
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
    return Side(result, probed, threads, pool or Pool(bytes_for()))


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


def _session(result: TierResult, probed: Probed, threads: int | None, pool: Pool) -> Session:
    outputs = ["logit", *probed.names]
    if result.runtime == QONNX:
        from .qonnx_session import QonnxSession

        return QonnxSession(probed.model, outputs=outputs)
    return tier_session(
        probed.model, result.tier, result.runtime, threads, outputs, memory=pool, shrink=True
    )


def _runtime_of(bundle: Bundle, asked: str | None) -> str:
    """What runs the deployed tier: ``asked``, or what ``model.onnx`` was made for."""
    if asked is None:
        return bundle.runtime
    if asked == TENSORRT:
        raise ParityError(
            f"{bundle.path}: an engine is compared with the bundle's golden results; add --golden"
        )
    if bundle.runtime != QONNX:
        return runtime_of(bundle, asked)
    if asked is not None:
        raise ParityError(f"{bundle.path}: a QONNX model runs in qonnx alone; leave --runtime out")
    return QONNX


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
        native=native_model(opened, tiers, runtime),
    )
    opened.check_unchanged()
    return VerifyResult(
        bundle=opened.path,
        arch=opened.arch,
        bits=opened.bits,
        target=opened.target,
        model_bytes=opened.model_bytes,
        seconds=time.perf_counter() - started,
        parity=results,
    )
