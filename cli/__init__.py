"""The command line: thin, one file a command; the work is done in the other rooms."""

from __future__ import annotations
