"""A folder that is watched: what comes into it is scored once, whatever happens meanwhile."""

from __future__ import annotations
