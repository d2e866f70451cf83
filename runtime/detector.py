"""A bundle's model, ready to score images: the Python interface of ``qmdd detect``."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt

from . import pipeline
from .bundle import Bundle
from .errors import ImageError, SessionError
from .heap import give_back
from .images import require_pillow
from .inputs import Input
from .machine import usable_cores
from .ordered import ordered
from .pixels import load_prepared, prepared
from .preprocess import prepare
from .session import Session
from .session_memory import bytes_for
from .sessions import open_session, runs_concurrently, runtime_of, sides_for
from .verdicts import Verdict, score_from_logit, verdict_from_score

if TYPE_CHECKING:
    from PIL.Image import Image

U8 = npt.NDArray[np.uint8]
#: An image: a file, pixels uint8 ``[H, W, 3]`` RGB, or an image of Pillow's.
ImageLike: TypeAlias = "str | os.PathLike[str] | U8 | Image"

#: Of a video, the first of every so many frames is scored: neighbours look nearly the same.
EVERY = 10
#: Images in one run of the model: more are no faster on a CPU (docs/detect.md).
BATCH = 1

__all__ = ["BATCH", "EVERY", "Detector", "Verdict", "score_from_logit", "verdict_from_score"]


class Detector:
    """A bundle's model, ready to score images.

    For example::

        detector = Detector.open("bundle")
        detector.score("photo.jpg")  # 0.0309..., the probability of fake

    Args:
        bundle: an opened bundle.
        threads: how many cores compute; default: all that this process may use. Many images are
            computed side by side, each on one core; :meth:`score_image` uses all for one image.
        runtime: one of :data:`~.sessions.RUNTIMES`; default: the one the bundle was made for.

    Raises:
        SessionError: see :func:`~.sessions.open_session`.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, runtime: str | None = None
    ) -> None:
        self.bundle = bundle
        self._runtime = runtime_of(bundle, runtime)
        #: What images are cropped to.
        self.sides = sides_for(bundle, [self._runtime])
        self._threads = usable_cores() if threads is None else threads
        concurrent = runs_concurrently(bundle, self._runtime)
        self._each = min(1, self._threads) if concurrent else self._threads
        self._batch = BATCH
        self._session = self._open(self._each)
        # A session for one thread at a time still leaves decoding to the others.
        self._running = contextlib.nullcontext() if concurrent else threading.Lock()

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

    def _open(self, threads: int) -> Session:
        """A session that may hold what the images computed at a time need, and no more."""
        session = open_session(
            self.bundle,
            runtime=self._runtime,
            threads=threads,
            outputs=["logit"],
            memory=bytes_for(max(self._threads, 1) * self._batch),
        )
        give_back()
        return session

    @functools.cached_property
    def _whole(self) -> Session:
        """A session that computes one image with all threads; opened when it is first needed."""
        return self._open(self._threads) if self._threads > 1 else self._session

    def score_image(self, rgb: U8) -> float:
        """Probability that ``rgb``, uint8 ``[H, W, 3]``, is fake; the soonest for one image.

        Raises:
            ImageError: too small, or not such an array.
            SessionError: the runtime fails, or the model gives no number.
        """
        session = self._whole if self._session.concurrent else self._session
        pixels = prepare(rgb, **self.sides)
        with self._running:
            return self._scores(session, pixels[np.newaxis])[0]

    @overload
    # A str is an iterable of str too: it is one image.
    def score(self, images: ImageLike) -> float: ...  # type: ignore[overload-overlap]

    @overload
    def score(self, images: Iterable[ImageLike]) -> Iterator[float]: ...

    def score(self, images: ImageLike | Iterable[ImageLike]) -> float | Iterator[float]:
        """Probability of fake of an image, or of each of many, in order and as they come.

        ``images`` is a file, an array uint8 ``[H, W, 3]``, an image of Pillow's (file and image are
        turned upright as their EXIF data says), or an iterable of these, which may be endless; an
        array uint8 ``[N, H, W, 3]`` is one too. An iterable is advanced by another thread, some
        images ahead of the scores that have been taken.

        Raises:
            ImageError: an image cannot be used (in its place in the order): which, and why.
            SessionError: the runtime fails, or the model gives no number.
        """
        if isinstance(images, np.ndarray):
            many = images.ndim == 4
        else:
            many = not (isinstance(images, (str, os.PathLike)) or _is_pillow(images))
        if not many:
            with self._running:
                return self._scores(self._session, self._pixels(images)[np.newaxis])[0]
        numbered = enumerate(cast("Iterable[ImageLike]", images))
        return ordered(numbered, self._score_numbered, self._workers)

    def _score_numbered(self, numbered: tuple[int, ImageLike]) -> float:
        number, image = numbered
        try:
            pixels = self._pixels(image)
        except ImageError as error:
            if isinstance(image, (str, os.PathLike)):
                raise
            raise ImageError(f"image {number}: {error}") from error
        with self._running:
            return self._scores(self._session, pixels[np.newaxis])[0]

    def _pixels(self, image: Any) -> U8:
        """``[3, h, w]``; an array's and a Pillow image's errors do not say which it is."""
        if isinstance(image, np.ndarray):
            return prepare(image, **self.sides)
        if isinstance(image, (str, os.PathLike)):
            return load_prepared(image, self.sides)
        if not _is_pillow(image):
            raise ImageError(
                "an image is a path, an array uint8 [height, width, 3] or an image of Pillow's; "
                f"this is {type(image).__name__}"
            )
        try:
            return prepared(image, self.sides)
        except ImageError:
            raise
        except Exception as error:  # its file is read only now, and may be damaged
            raise ImageError(f"damaged image ({type(error).__name__}: {error})") from error

    @property
    def _workers(self) -> int:
        """One a core, and where the session itself uses all, a second one to decode meanwhile."""
        return self._threads if self._session.concurrent else 2

    def _scores(self, session: Session, images: U8) -> list[float]:
        logits = session.logits(images).tolist()
        if any(math.isnan(logit) for logit in logits):
            raise SessionError(f"{self.bundle.model_path}: its logit is not a number")
        return [score_from_logit(logit) for logit in logits]

    def _scores_of_many(self, images: U8) -> list[float]:
        with self._running:
            return self._scores(self._session, images)

    def detect(
        self,
        paths: Iterable[str | os.PathLike[str] | Input],
        *,
        threshold: float | None = None,
        batch: int = BATCH,
        every: int = EVERY,
        frames: bool = False,
    ) -> Iterator[Verdict]:
        """Verdicts on image and video files, in the order of ``paths`` and as they come.

        Decoding stands beside inference; a few images are in memory, however many there are, and
        ``paths`` may be endless (it is advanced by another thread, some files ahead). A file that
        cannot be used gets a verdict with its error, and the run goes on.

        Args:
            paths: files; the suffix tells a video (:data:`~.video.VIDEO_SUFFIXES`). Folders and
                patterns are for :func:`~.inputs.find_inputs`, whose items are taken as well.
            threshold: score above which an image is called fake; default: the bundle's.
            batch: images that are taken at a time; those of equal size among them are scored in
                one run. It may change the last bit of a logit, no code.
            every: of a video, the first of every so many frames is scored.
            frames: yield a verdict on each of these frames too, before the one on their video.

        Raises:
            ValueError: ``threshold`` is not within 0..1, ``batch`` or ``every`` not positive.
            ImageError: Pillow is not installed.
            SessionError: the runtime fails, or the model gives no number (while iterating).
        """
        bar = self.bundle.threshold if threshold is None else threshold
        if not 0 <= bar <= 1:
            raise ValueError(f"threshold={bar} must be within 0..1")
        if batch < 1 or every < 1:
            raise ValueError(f"batch={batch} and every={every} must be at least 1")
        require_pillow()
        if batch > self._batch:  # the session is bounded: larger batches need another one
            self._batch = batch
            self._session = self._open(self._each)
        return pipeline.run(
            (path if isinstance(path, Input) else Input(Path(path)) for path in paths),
            self._scores_of_many,
            sides=self.sides,
            threshold=bar,
            threads=self._workers,
            batch=batch,
            every=every,
            frames=frames,
        )


def _is_pillow(image: object) -> bool:
    """Without importing Pillow: who has an image of its has imported it."""
    return hasattr(image, "getexif") and hasattr(image, "tobytes")
