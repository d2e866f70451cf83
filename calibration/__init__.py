"""The calibration room: image folders, training recipes, training, evaluation in torch."""

from __future__ import annotations
