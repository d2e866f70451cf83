"""The demo's application around a model small enough to check by hand, and images for it."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from qmdd.runtime.demo.answer import Answerer
from qmdd.runtime.demo.app import demo_app
from qmdd.runtime.demo.turns import Turns
from qmdd.runtime.detector import Detector

URL = "http://127.0.0.1:8000"


@pytest.fixture
def answerer(make_bundle: Callable[..., Path]) -> Answerer:
    """Bright images are fake, dark ones real."""
    return Answerer(Detector.open(make_bundle(), threads=1))


@pytest.fixture
def client(answerer: Answerer) -> TestClient:
    """Asks as a browser on this machine does."""
    return TestClient(demo_app(answerer, turns=Turns(2, 8)), base_url=URL)


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """``picture(level, side=40, form="PNG")``: an image file's bytes, all of one grey."""

    def make(level: int = 200, side: int = 40, form: str = "PNG") -> bytes:
        stream = io.BytesIO()
        Image.fromarray(np.full((side, side, 3), level, np.uint8)).save(stream, form)
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A PNG file of 100,000 bytes that says that it is 30,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    side = (30_000).to_bytes(4, "big")
    head = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    pixels = chunk(b"IDAT", zlib.compress(bytes(100_000_000), 1))
    return b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")
