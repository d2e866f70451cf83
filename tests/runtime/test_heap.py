"""Freed memory goes back to the system where the C library has a way to do so."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import pytest

from qmdd.runtime.heap import give_back


def test_glibc_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(malloc_trim=asked.append))
    give_back()
    assert asked == [0]


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has no such function (musl), and systems that are not Linux."""
    loaded: list[object] = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: loaded.append(name) or SimpleNamespace())
    give_back()
    assert loaded == [None]
    monkeypatch.setattr(sys, "platform", "darwin")
    give_back()
    assert loaded == [None]
