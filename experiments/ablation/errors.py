"""What the experiments refuse; the message is for the user."""

from __future__ import annotations

from qmdd.cli.errors import CommandError


class ExperimentError(CommandError):
    """A result, a folder or an option that does not fit; ends as one line, exit code 1."""
