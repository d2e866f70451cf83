"""A second engine of a bundle, whose codes can be seen: for the comparison with golden results.

The engine as deployed has one output. Its codes are seen in another one, built from the same model
with probes, by the same TensorRT, and thrown away afterwards. It needs neither torch nor onnx.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...runtime.bundle import MODEL, Bundle
from ...runtime.engine import ENGINE, EngineRecord, read_record
from ...runtime.engine_session import EngineSession
from ...runtime.probes import probed_model
from ..errors import BuildError
from .build import TIMEOUT, default_memory_limit, engine_target
from .process import Report, run_builder
from .request import BuildRequest, Profile


@contextlib.contextmanager
def probed_engine(
    bundle: Bundle, shapes: Sequence[tuple[int, ...]], report: Report | None = None
) -> Iterator[EngineSession]:
    """A session over an engine of ``bundle`` that gives the logit and every layer's codes.

    It is built as the bundle's engine was, in a temporary folder that is gone afterwards.

    Args:
        bundle: with an engine, and with probes.
        shapes: of the images that it must take, ``[N, 3, H, W]``.
        report: called with ``(what is being done, done, total)``.

    Raises:
        BuildError: it cannot be built. EngineError, SessionError: it cannot be loaded here.
    """
    record = read_record(bundle)
    with tempfile.TemporaryDirectory(prefix="qmdd-verify-") as folder:
        request = build_probed(bundle, record, shapes, Path(folder), report)
        profile = dataclasses.asdict(request.profile)
        path = Path(folder) / ENGINE
        with EngineSession.of_file(path, profile, record.backend) as session:
            yield session


def build_probed(
    bundle: Bundle,
    record: EngineRecord,
    shapes: Sequence[tuple[int, ...]],
    folder: Path,
    report: Report | None = None,
) -> BuildRequest:
    """Build that engine into ``folder``; what was asked of the builder.

    Raises:
        BuildError: no probes in the bundle, or the build failed.
    """
    data = probed_model(bundle)
    if data is None:
        raise BuildError(f"{bundle.path}: holds no probes of its codes; export it anew")
    (folder / MODEL).write_bytes(data)
    target, engine = engine_target(bundle, record.target)
    sides = [side for shape in shapes for side in shape[2:]]
    low, high = min(sides), max(sides)
    request = BuildRequest(
        backend=record.backend,
        model=str(folder / MODEL),
        folder=str(folder),
        compute_capabilities=record.compute_capabilities,
        versions=(record.version, record.version),
        workspace=int(record.options.get("workspace_mib", engine.workspace_mib)) << 20,
        profile=Profile.of((1, 1, 1), (low, high, high)),
        probes=True,
    )
    say = report or (lambda _what, _done, _total: None)
    limit = default_memory_limit(target)
    try:
        run_builder(request, timeout=TIMEOUT, memory_limit=limit, report=say)
    except BuildError as error:
        raise BuildError(f"{bundle.path}: with probes: {error}") from error
    return request
