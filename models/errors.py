"""Errors of the models room; each message says what, where, and what to do."""

from __future__ import annotations


class ModelError(Exception):
    """A configuration or checkpoint that cannot be used."""


class CheckpointError(ModelError):
    """A checkpoint file that is missing, damaged, foreign or does not match its configuration."""
