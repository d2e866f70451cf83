"""``qmdd scan``: every file of a collection scored once, however often it is interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .. import native
from ..bundle import MODEL, NATIVE_MODEL, Bundle
from ..detector import EVERY
from ..errors import ScanError
from ..files import locked
from ..images import require_pillow
from ..inputs import Input
from ..sessions import NATIVE, runtime_of
from .listing import Listing, Part, read_part
from .record import INPUTS, PARTS, Scan, clear_left, open_scan
from .table import MAX_PART, Counts, check_part, part_path, require_pyarrow
from .work import Work, open_detector, score_parts

#: Files in a part: what an interruption costs at most, of each worker.
PART = 500

Report = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class OnRay:
    """Where to score, if not here; see :func:`.ray_engine.score_on_ray`."""

    address: str | None = None
    workers: int | None = None


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What the results hold.

    Attributes:
        results: their folder.
        files: how many inputs there are, each a row.
        failed: rows with an error in place of a score.
        fake: rows whose verdict is fake.
        parts: files of rows.
        kept: parts that were there already.
        damaged: parts that were there, were not what they should be, and were done again.
        seconds: that this run took.
    """

    results: Path
    files: int
    failed: int
    fake: int
    parts: int
    kept: int
    damaged: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**dataclasses.asdict(self), "results": str(self.results)}


def scan(
    bundle: Path,
    inputs: Iterable[Input],
    results: Path,
    *,
    part: int = PART,
    threshold: float | None = None,
    every: int = EVERY,
    runtime: str | None = None,
    threads: int | None = None,
    ray: OnRay | None = None,
    force: bool = False,
    report: Report | None = None,
) -> ScanResult:
    """Score ``inputs`` with the bundle in folder ``bundle``; rows of Parquet in ``results``.

    The same call again goes on where an earlier one ended, whatever ended it; with nothing left to
    do it only checks what is there.

    Args:
        bundle: its folder.
        inputs: what :func:`~qmdd.runtime.inputs.find_inputs` finds; listed once, at the start.
        results: a folder, made if it is missing.
        part: files in a part, 1 to 100,000.
        threshold: score above which an image is called fake; default: the bundle's.
        every: of a video, the first of every so many frames is scored.
        runtime: as of :class:`~qmdd.runtime.detector.Detector`.
        threads: cores to compute with; default: all. On Ray: of each worker; default: 1.
        ray: score on Ray.
        force: start anew, whatever scan ``results`` holds.
        report: called with ``(what is being done, done, total)``.

    Raises:
        ScanError: another scan or other files are there, nothing to scan, a worker fails.
        BundleError, SessionError, ImageError: see :class:`~qmdd.runtime.detector.Detector`.
        OSError: ``results`` cannot be written. Finished parts are kept, whatever is raised.
    """
    if not 1 <= part <= MAX_PART:
        raise ScanError(f"part={part} must be within 1..{MAX_PART:,}")
    require_pillow()
    require_pyarrow()
    started = time.perf_counter()
    say = report or (lambda _what, _done, _total: None)
    opened = Bundle.open(bundle)
    chosen = runtime_of(opened, runtime)
    model = NATIVE_MODEL if chosen == NATIVE and native.library_path() else MODEL
    wanted = Scan(
        manifest_sha256=opened.manifest_sha256,
        model_sha256=str(opened.manifest["files"][model]["sha256"]),
        runtime=chosen,
        threshold=opened.threshold if threshold is None else threshold,
        every=every,
        part=part,
    )
    about = {"bundle": os.path.abspath(bundle), "arch": opened.arch, "bits": opened.bits}
    results.mkdir(parents=True, exist_ok=True)
    with _alone(results):
        say("listing", 0, 0)
        found, listing = open_scan(results, wanted, inputs, about=about, force=force)
        clear_left(results)
        work = Work(os.path.abspath(bundle), os.path.abspath(results), found)
        kept, damaged, missing = _check(work, listing, say)
        total = Counts(0, 0, 0)
        for counts in kept:
            total = total.plus(counts)
        say("scanning", total.files, listing.files)
        for counts in _score(work, missing, threads, ray):
            total = total.plus(counts)
            say("scanning", total.files, listing.files)
        if total.files != listing.files:
            raise ScanError(
                f"{results}: {total.files:,} of {listing.files:,} files are there; run the same "
                "command again"
            )
    seconds = time.perf_counter() - started
    parts = len(listing.parts)
    return ScanResult(results, *total, parts, len(kept), damaged, seconds)


@contextlib.contextmanager
def _alone(results: Path) -> Iterator[None]:
    with contextlib.ExitStack() as inside:
        try:
            inside.enter_context(locked(results))
        except BlockingIOError as error:
            raise ScanError(f"{results}: another scan is writing to it; wait") from error
        yield


def _check(work: Work, listing: Listing, say: Report) -> tuple[list[Counts], int, list[Part]]:
    """What the parts that are there hold; how many are damaged; which are to be scored."""
    folder, inputs = Path(work.results, PARTS), Path(work.results, INPUTS)
    kept, damaged, missing = [], 0, []
    for part in listing.parts:
        counts = None
        if os.path.lexists(part_path(folder, part.number)):
            counts = check_part(folder, part, read_part(inputs, part), scan=work.scan.id)
            damaged += counts is None
        if counts is None:
            missing.append(part)
        else:
            kept.append(counts)
            say("checking", part.first + part.files, listing.files)
    return kept, damaged, missing


def _score(
    work: Work, missing: list[Part], threads: int | None, ray: OnRay | None
) -> Iterator[Counts]:
    if not missing:
        return
    if ray is not None:
        from .ray_engine import score_on_ray

        yield from score_on_ray(
            work, missing, address=ray.address, workers=ray.workers, threads=threads
        )
        return
    for _, counts in score_parts(work, open_detector(work, threads), missing):
        yield counts
