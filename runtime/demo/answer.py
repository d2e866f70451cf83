"""An image file's bytes to what is said of it."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..detector import Detector
from ..images import image_size
from ..pixels import load_prepared
from ..verdicts import verdict_from_score
from .body import MAX_BYTES
from .picture import npr_picture, png_bytes

#: Images with more pixels are refused before one is decoded; a photo of a large camera has fewer.
MAX_PIXELS = 32_000_000


class Answerer:
    """Scores images for the page and for programs; may be called by several threads.

    Args:
        detector: of the bundle.
        threshold: score above which an image is called fake; default: the bundle's.
    """

    def __init__(self, detector: Detector, threshold: float | None = None) -> None:
        self._detector = detector
        self._sees_npr = _sees_npr(detector.bundle)
        self.threshold = detector.bundle.threshold if threshold is None else threshold

    def warm_up(self) -> None:
        """Score one image: the first takes several times as long."""
        side = self._detector.bundle.sides["min_side"]
        self.answer(png_bytes(np.zeros((side, side, 3), dtype=np.uint8)))

    def about(self) -> dict[str, Any]:
        """The bundle and the limits, plain data for JSON."""
        bundle = self._detector.bundle
        return {
            "bundle": bundle.path.resolve().name,
            "arch": bundle.arch,
            "bits": bundle.bits,
            "target": bundle.target,
            "npr": self._sees_npr,
            "threshold": self.threshold,
            "max_bytes": MAX_BYTES,
            "max_pixels": MAX_PIXELS,
            **bundle.sides,
        }

    def answer(self, data: bytes, *, picture: bool = False) -> dict[str, Any]:
        """What is found, plain data for JSON.

        Args:
            data: an image file's bytes.
            picture: with ``npr``, the NPR picture as a ``data:`` address.

        Raises:
            ImageError: not an image that can be used; what and why.
            SessionError: the model fails.
        """
        started = time.perf_counter()
        width, height = image_size(data, MAX_PIXELS)
        pixels = load_prepared(data, self._detector.bundle.sides, MAX_PIXELS)
        decoded = time.perf_counter()
        score = self._detector.score_image(pixels.transpose(1, 2, 0))
        scored = time.perf_counter()
        found = {
            "score": score,
            "verdict": verdict_from_score(score, self.threshold),
            "threshold": self.threshold,
            "width": width,
            "height": height,
            "seen_width": pixels.shape[2],
            "seen_height": pixels.shape[1],
            "decode_ms": 1e3 * (decoded - started),
            "model_ms": 1e3 * (scored - decoded),
        }
        if picture:
            found["npr"] = _address(png_bytes(npr_picture(pixels))) if self._sees_npr else None
        return found


def _sees_npr(bundle: Bundle) -> bool:
    """Whether the network sees NPR; it does unless the manifest names another representation."""
    source = bundle.manifest.get("source")
    config = source.get("config") if isinstance(source, dict) else None
    representation = config.get("representation", "npr") if isinstance(config, dict) else "npr"
    return bool(representation == "npr") and bundle.sides["multiple"] % 2 == 0


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
