"""What it takes to score parts, the same here and in a worker on another machine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bundle import Bundle
from ..detector import Detector
from ..errors import ScanError
from .listing import Part, read_parts
from .record import INPUTS, PARTS, Scan
from .table import Counts, write_part


class Work(NamedTuple):
    """Plain data that can be sent to a worker.

    Attributes:
        bundle: its folder, absolute.
        results: folder of the results, absolute.
        scan: what is scanned.
    """

    bundle: str
    results: str
    scan: Scan


def open_detector(work: Work, threads: int | None) -> Detector:
    """The detector, with the very bundle that the scan began with.

    Raises:
        ScanError: the bundle is another one. BundleError, SessionError: see :class:`Detector`.
    """
    path = Path(work.bundle)
    bundle = Bundle.open(path)
    if bundle.manifest_sha256 != work.scan.manifest_sha256:
        raise ScanError(f"{path}: is not the bundle that the scan began with; put that one there")
    return Detector(bundle, threads=threads, runtime=work.scan.runtime)


def score_parts(
    work: Work, detector: Detector, parts: Sequence[Part]
) -> Iterator[tuple[Part, Counts]]:
    """Score ``parts`` in order and write each as soon as it is complete; yields what was written.

    The detector is kept busy across their bounds: while the last files of a part are scored, those
    of the next are decoded.

    Raises:
        SessionError: the runtime fails. ScanError, OSError: the list or a result.
    """
    scan, results = work.scan, Path(work.results)
    verdicts = detector.detect(
        read_parts(results / INPUTS, parts), threshold=scan.threshold, every=scan.every
    )
    for part in parts:
        found = list(itertools.islice(verdicts, part.files))
        counts = write_part(results / PARTS, part, found, scan=scan.id, bundle=scan.manifest_sha256)
        yield part, counts
