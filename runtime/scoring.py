"""Scores of a labelled image folder, and what in it cannot be scored.

Unusable images are found early where their header shows it, before the first image is scored; the
rest where they are decoded. Either all are left out, counted and named, or the run fails and says
how many there are: a result over fewer images than asked for is never given silently.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from .detector import Detector, Verdict
from .errors import BundleError, DataError, ImageError
from .folder import Sample
from .images import image_size, require_pillow
from .known_sets import generators_from_record
from .pixels import load_prepared
from .preprocess import check_size

Report = Callable[[str, int, int], None]


class Detect(Protocol):
    """Verdicts in the order of the paths, each made when it is asked for."""

    def __call__(self, paths: Iterable[Path], /) -> Iterator[Verdict]:
        """An image that cannot be used gets a verdict with its error."""
        ...  # pragma: no cover


class Subject(NamedTuple):
    """A detector to evaluate, whatever runs it.

    Attributes:
        path: the bundle or checkpoint.
        kind: ``bundle`` or ``checkpoint``.
        arch, bits: the network and its width.
        threshold: its own threshold.
        sides: what :func:`~.preprocess.prepare` takes.
        trained_on: the generators that it was trained on, if it has a record of them.
        detect: scores images.
    """

    path: Path
    kind: str
    arch: str
    bits: int
    threshold: float
    sides: dict[str, int]
    trained_on: tuple[str, ...] | None
    detect: Detect


class Unusable(NamedTuple):
    """An image that cannot be scored; ``reason`` names it."""

    path: Path
    reason: str


class Scored(NamedTuple):
    """The samples that could be scored, and what was left out.

    Attributes:
        samples: in the order in which they were given.
        scores: float64 ``[len(samples)]``, probability of fake.
        skipped: unusable images, by path.
        lost: generators of which no image is left.
    """

    samples: list[Sample]
    scores: npt.NDArray[np.float64]
    skipped: list[Unusable]
    lost: tuple[str, ...] = ()


def subject_from_bundle(
    path: Path, threads: int | None = None, runtime: str | None = None
) -> Subject:
    """The bundle in folder ``path``, run by ``runtime``; default: the one it was made for.

    Raises:
        BundleError, SessionError: it cannot be used.
    """
    detector = Detector.open(path, threads=threads, runtime=runtime)
    bundle = detector.bundle
    source = bundle.manifest.get("source")
    try:
        record = source.get("generators") if isinstance(source, dict) else None
        trained_on = generators_from_record(record)
    except DataError as error:
        raise BundleError(f"{path}: {error}; export it anew") from error
    return Subject(
        path,
        "bundle",
        bundle.arch,
        bundle.bits,
        bundle.threshold,
        detector.sides,
        trained_on,
        detector.detect,
    )


def find_unusable(
    paths: Sequence[Path], sides: dict[str, int], report: Report | None = None
) -> list[Unusable]:
    """The images whose header shows that they cannot be used.

    Raises:
        ImageError: Pillow is not installed.
    """
    require_pillow()
    bad = []
    for done, path in enumerate(paths, 1):
        try:
            size = image_size(path)
        except ImageError as error:
            bad.append(Unusable(path, str(error)))
        else:
            try:
                check_size(*size, **sides)
            except ImageError as error:
                bad.append(Unusable(path, f"{path}: {error}"))
        if report:
            report("looking at images", done, len(paths))
    return bad


def refuse_unusable(
    samples: Sequence[Sample], sides: dict[str, int], report: Report | None = None
) -> None:
    """Raise the :class:`DataError` of :func:`score_samples` if any image's header shows one."""
    say = report or (lambda _what, _done, _total: None)
    paths = list(dict.fromkeys(sample.path for sample in samples))
    bad = find_unusable(paths, sides, say)
    if bad:
        raise _refusal(_all_unusable(paths, bad, sides, say), len(paths))


def score_samples(
    samples: Sequence[Sample],
    subject: Subject,
    *,
    skip_bad: bool = False,
    report: Report | None = None,
) -> Scored:
    """Score every sample; an image that is a sample of several generators is scored once.

    Args:
        skip_bad: leave unusable images out instead of failing.
        report: called with ``(what is being done, done, total)``.

    Raises:
        DataError: images that cannot be used, how many and the first; or with ``skip_bad``, a class
            of which nothing is left.
        SessionError: the model fails.
    """
    say = report or (lambda _what, _done, _total: None)
    paths = list(dict.fromkeys(sample.path for sample in samples))
    bad = find_unusable(paths, subject.sides, say)
    if bad and not skip_bad:
        raise _refusal(_all_unusable(paths, bad, subject.sides, say), len(paths))
    known = {path for path, _ in bad}
    usable = [path for path in paths if path not in known]
    scores: dict[Path, float] = {}
    for done, verdict in enumerate(subject.detect(usable), 1):
        if verdict.score is not None:
            scores[verdict.path] = verdict.score
        else:
            bad.append(Unusable(verdict.path, verdict.error or f"{verdict.path}: no score"))
            if not skip_bad:
                rest = _all_unusable(usable[done:], [], subject.sides, say)
                raise _refusal([*bad, *rest], len(paths))
        say("scoring", done, len(usable))
    kept = [sample for sample in samples if sample.path in scores]
    if {sample.label for sample in kept} != {sample.label for sample in samples}:
        raise DataError(f"no usable image of one class is left; the first: {bad[0].reason}")
    found = np.array([scores[sample.path] for sample in kept], dtype=np.float64)
    lost = {sample.generator for sample in samples} - {sample.generator for sample in kept}
    return Scored(kept, found, sorted(bad), tuple(sorted(lost)))


def scores_csv(scored: Scored) -> bytes:
    """A line for each sample: path, label (0 real, 1 fake), generator, score; UTF-8."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "generator", "score"))
    for sample, score in zip(scored.samples, scored.scores, strict=True):
        table.writerow((sample.path, sample.label, sample.generator, float(score)))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _all_unusable(
    paths: Sequence[Path], bad: Sequence[Unusable], sides: dict[str, int], report: Report
) -> list[Unusable]:
    """``bad`` and those that only decoding shows; for the count in the message."""
    found = {item.path: item for item in bad}
    for done, path in enumerate(paths, 1):
        if path not in found:
            try:
                load_prepared(path, sides)
            except ImageError as error:
                found[path] = Unusable(path, str(error))
        report("counting unusable images", done, len(paths))
    return sorted(found.values())


def _refusal(bad: Sequence[Unusable], total: int) -> DataError:
    count = "1 image" if len(bad) == 1 else f"{len(bad):,} images"
    return DataError(
        f"{count} of {total:,} cannot be used, the first: {bad[0].reason}; remove what cannot be "
        "used, or leave it out with --skip-bad"
    )
