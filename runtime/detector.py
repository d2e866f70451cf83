"""Images to verdicts, with a bundle and no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .bundle import Bundle
from .errors import ImageError, SessionError
from .images import load_rgb, require_pillow
from .preprocess import prepare
from .sessions import open_session

U8 = npt.NDArray[np.uint8]


class Verdict(NamedTuple):
    """What became of one image: ``score`` and ``verdict``, or else ``error``.

    ``score`` is the probability of fake, 0..1.
    """

    path: Path
    score: float | None = None
    verdict: Literal["real", "fake"] | None = None
    error: str | None = None


def score_from_logit(logit: float) -> float:
    """The logistic function in float64, without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    grown = math.exp(logit)
    return grown / (1.0 + grown)


def verdict_from_score(score: float, threshold: float) -> Literal["real", "fake"]:
    """``fake`` above the threshold, ``real`` at it and below."""
    return "fake" if score > threshold else "real"


class Detector:
    """A bundle's model, ready to score images.

    Args:
        bundle: an opened bundle.
        threads: the runtime's threads; default: one for each core this process may use.
        runtime: one of :data:`~.sessions.RUNTIMES`; default: the one the bundle was made for.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, runtime: str | None = None
    ) -> None:
        self.bundle = bundle
        self._session = open_session(bundle, runtime=runtime, threads=threads, outputs=["logit"])

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        runtime: str | None = None,
    ) -> Detector:
        """The detector of the bundle in folder ``path``, every file's hash checked.

        Raises:
            BundleError: see :meth:`Bundle.open`.
            SessionError: see :func:`~.sessions.open_session`.
        """
        return cls(Bundle.open(path), threads=threads, runtime=runtime)

    def score_image(self, rgb: U8) -> float:
        """Probability that ``rgb``, uint8 ``[H, W, 3]``, is fake.

        Raises:
            ImageError: too small, or not such an array.
            SessionError: the runtime fails, or the model gives no number.
        """
        pixels = prepare(rgb, **self.bundle.sides)
        logit = float(self._session.logits(pixels[np.newaxis])[0])
        if math.isnan(logit):
            raise SessionError(f"{self.bundle.model_path}: its logit is not a number")
        return score_from_logit(logit)

    def detect(
        self, paths: Iterable[str | os.PathLike[str]], *, threshold: float | None = None
    ) -> Iterator[Verdict]:
        """Verdicts in the order of ``paths``, each made when it is asked for.

        One image is in memory at a time. An image that cannot be used gets a verdict with its
        error, and the run goes on.

        Args:
            threshold: score above which an image is called fake; default: the bundle's.

        Raises:
            ValueError: ``threshold`` is not within 0..1.
            ImageError: Pillow is not installed.
            SessionError: the runtime fails (while iterating).
        """
        bar = self.bundle.threshold if threshold is None else threshold
        if not 0 <= bar <= 1:
            raise ValueError(f"threshold={bar} must be within 0..1")
        require_pillow()
        return (self._verdict(Path(path), bar) for path in paths)

    def _verdict(self, path: Path, threshold: float) -> Verdict:
        try:
            rgb = load_rgb(path)
        except ImageError as error:
            return Verdict(path, error=str(error))
        try:
            score = self.score_image(rgb)
        except ImageError as error:
            return Verdict(path, error=f"{path}: {error}")
        return Verdict(path, score, verdict_from_score(score, threshold))
