"""The calibration room: image folders, training recipes, training, evaluation in torch.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import CalibrationError

if TYPE_CHECKING:
    from .calibrate import LayerRange, Plan, quantise
    from .evaluate import scores_of, subject_from_checkpoint
    from .images import CalibrationImages
    from .recipe import Recipe, Stage, default_recipe, load_recipe
    from .train import Trainer, latent_from

_HOMES = {
    "CalibrationImages": "images",
    "LayerRange": "calibrate",
    "Plan": "calibrate",
    "Recipe": "recipe",
    "Stage": "recipe",
    "Trainer": "train",
    "default_recipe": "recipe",
    "latent_from": "train",
    "load_recipe": "recipe",
    "quantise": "calibrate",
    "scores_of": "evaluate",
    "subject_from_checkpoint": "evaluate",
}

__all__ = [
    "CalibrationError",
    "CalibrationImages",
    "LayerRange",
    "Plan",
    "Recipe",
    "Stage",
    "Trainer",
    "default_recipe",
    "latent_from",
    "load_recipe",
    "quantise",
    "scores_of",
    "subject_from_checkpoint",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
