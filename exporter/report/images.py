"""The images of a report: what the model was given, what NPR makes of it, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...runtime.bundle import Bundle
from ...runtime.errors import RuntimeFailure
from ...runtime.golden import read_golden
from ...runtime.pixels import load_prepared
from ...runtime.sessions import open_session
from ...runtime.verdicts import score_from_logit

U8 = npt.NDArray[np.uint8]

#: So many images are shown; of more, some that lie evenly among them.
MOST = 8
#: Longer sides are cropped, so that a page stays small; never resampled.
SIDE = 512


class Shown(NamedTuple):
    """One image: its name, its pixels uint8 ``[3, h, w]``, and its recorded logit if it has one."""

    name: str
    pixels: U8
    golden: float | None = None


def golden_images(bundle: Bundle) -> tuple[list[Shown], list[dict[str, Any]]]:
    """The images that travel in ``bundle``, and how often each code came in each layer there.

    Raises:
        BundleError: its golden results are damaged.
    """
    if bundle.golden_path is None:
        return [], []
    golden = read_golden(bundle.golden_path)
    shown = [
        Shown(f"golden image {number}", image, float(logit))
        for number, (image, logit) in enumerate(
            zip(golden.images, golden.logits, strict=True), start=1
        )
    ]
    layers = []
    for layer in golden.layers:
        counts = sum(np.bincount(c[layer].reshape(-1), minlength=256) for c in golden.codes)
        held = np.trim_zeros(np.asarray(counts), "b")
        if held.size:
            shares = [float(share) for share in held / held.sum()]
            layers.append({"layer": layer, "shares": shares})
    return shown, layers


def load(paths: Sequence[Path], bundle: Bundle) -> list[Shown]:
    """At most :data:`MOST` of ``paths``, spread evenly, cropped to :data:`SIDE`.

    Raises:
        ImageError: one of them cannot be used.
    """
    if len(paths) > MOST:
        places = np.linspace(0, len(paths) - 1, MOST).round().astype(int)
        paths = [paths[place] for place in places]
    sides = {**bundle.sides}
    sides["max_side"] = max(min(sides["max_side"], SIDE), sides["min_side"])
    return [Shown(path.name, load_prepared(path, sides)) for path in paths]


def scores(
    bundle: Bundle, images: Sequence[Shown], threads: int | None = None
) -> tuple[list[float | None], str]:
    """The bundle's score of each image, run here; or ``None`` for each, and why not."""
    try:
        session = open_session(bundle, threads=threads, outputs=["logit"])
        return [_score(session.logits(i.pixels[np.newaxis])[0]) for i in images], ""
    except RuntimeFailure as error:
        return [None] * len(images), str(error)


def _score(logit: float) -> float | None:
    return score_from_logit(float(logit)) if np.isfinite(logit) else None


def score_or_none(logit: float | None) -> float | None:
    """The probability of *fake*, ``None`` without a logit."""
    return None if logit is None else _score(logit)
