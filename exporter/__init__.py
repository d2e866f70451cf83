"""The exporter room: frozen detector to canonical ONNX, target ONNX, bundle; parity."""

from __future__ import annotations
