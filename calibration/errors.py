"""Errors of the calibration room; each message says what, where, and what to do."""

from __future__ import annotations


class CalibrationError(Exception):
    """Data, a recipe or a training run that cannot be used."""
