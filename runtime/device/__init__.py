"""The device that a bundle runs on: its facts, and what they mean for a bundle."""

from __future__ import annotations
