"""What becomes of an image, of a frame, of a video."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

Word = Literal["real", "fake"]


class FramePlace(NamedTuple):
    """Which frame of a video: its number among those decoded, from 0, and its time stamp."""

    number: int
    seconds: float | None


class Clip(NamedTuple):
    """What the verdict on a video stands on.

    Attributes:
        frames: how many were scored.
        fakes: how many of these are fake, each by itself.
        decoded: how many could be decoded.
        broken: how many times something could not be decoded, or scored, and was passed over.
        first_broken: what the first of these was.
    """

    frames: int
    fakes: int
    decoded: int
    broken: int = 0
    first_broken: str | None = None


class Verdict(NamedTuple):
    """What became of one image, frame or video: ``score`` and ``verdict``, or else ``error``.

    Attributes:
        path: the file.
        score: probability of fake, 0..1; of a video, the mean of its frames' scores.
        verdict: ``fake`` where the score is above the threshold.
        error: why there is no score; names the file.
        frame: of a frame, which one.
        clip: of a video, what its score stands on.
    """

    path: Path
    score: float | None = None
    verdict: Word | None = None
    error: str | None = None
    frame: FramePlace | None = None
    clip: Clip | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what does not apply is left out."""
        found: dict[str, Any] = {"path": str(self.path)}
        if self.error is not None:
            found["error"] = self.error
        if self.frame is not None:
            found |= {"frame": self.frame.number, "seconds": self.frame.seconds}
        if self.error is None:
            found |= {"score": self.score, "verdict": self.verdict}
        if self.clip is not None:
            clip = self.clip
            found |= {"frames": clip.frames, "fake_frames": clip.fakes, "decoded": clip.decoded}
            found |= {"broken": clip.broken, "first_broken": clip.first_broken}
        return found


def score_from_logit(logit: float) -> float:
    """The logistic function in float64, without overflow."""
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    grown = math.exp(logit)
    return grown / (1.0 + grown)


def verdict_from_score(score: float, threshold: float) -> Word:
    """``fake`` above the threshold, ``real`` at it and below."""
    return "fake" if score > threshold else "real"
