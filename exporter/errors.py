"""Errors of the exporter room; each message says what, where, and what to do."""

from __future__ import annotations


class ExportError(Exception):
    """A detector, target or graph that cannot be exported exactly."""


class ParityError(ExportError):
    """The exported model and its source cannot be compared."""


class BuildError(ExportError):
    """An engine that cannot be built, or is not what was planned."""


class ReportError(ExportError):
    """A report that cannot be made of what was given."""
