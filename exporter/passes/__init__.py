"""Graph passes, one file each; :mod:`..targets` says which a target needs and in what order."""

from __future__ import annotations
