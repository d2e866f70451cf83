"""Engines: TensorRT's builder in a process of its own, and an audit of what it built."""

from __future__ import annotations
