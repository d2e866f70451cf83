"""Requests to qmdd demo, as its server hands them on."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..kind import Kind, NotRight, Reader
from ..mutators.media import mutate_media
from ..mutators.words import mutate_words
from ..workshop import Workshop

_HEAD = (
    b"POST /api/score?npr=1 HTTP/1.1\nhost: 127.0.0.1:8000\ncontent-type: image/png\n"
    b"content-length: 4220\norigin: http://127.0.0.1:8000\nsec-fetch-site: same-origin\n\n"
)


def _seeds(workshop: Workshop) -> list[bytes]:
    form = b'--x\ncontent-disposition: form-data; name="f"; filename="a.png"\n\n'
    picture = workshop.picture("PNG").read_bytes()
    return [
        _HEAD + picture,
        _HEAD.replace(b"origin: http://127.0.0.1:8000\n", b"")
        + workshop.picture("JPEG").read_bytes(),
        _HEAD.replace(b"image/png", b"multipart/form-data; boundary=x")
        + form
        + picture[:40]
        + b"--x--",
        _HEAD.replace(b"sec-fetch-site", b"x-gone") + picture,
        b"GET / HTTP/1.1\nhost: localhost\n\n",
        b"GET /api/bundle HTTP/1.1\nhost: [::1]:8000\n\n",
        b"GET /page.js HTTP/1.1\nhost: localhost\n\n",
    ]


def _scope(head: bytes) -> dict[str, Any]:
    first, *lines = head.split(b"\n")
    words = first.split(b" ")
    target = words[1] if len(words) > 1 else b"/"
    path, _, query = target.partition(b"?")
    pairs = [line.partition(b":") for line in lines if line]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": words[0].decode("latin-1").upper(),
        "scheme": "http",
        "path": path.decode("utf-8", "replace"),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.strip().lower(), value.strip()) for name, _, value in pairs],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8000),
    }


def _read(workshop: Workshop, _scratch: Path) -> Reader:
    from qmdd.runtime.demo.answer import Answerer
    from qmdd.runtime.demo.app import demo_app
    from qmdd.runtime.demo.guard import HEADERS
    from qmdd.runtime.demo.turns import Turns
    from qmdd.runtime.detector import Detector

    detector = Detector.open(workshop.bundle, threads=1, runtime="onnxruntime")
    said: list[str] = []
    turns = Turns(2, 2)
    app: Any = demo_app(Answerer(detector), turns=turns, say=said.append)
    loop = asyncio.new_event_loop()

    async def ask(head: bytes, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        gone = b"x-gone" in head
        parts = [body[: len(body) // 2], body[len(body) // 2 :]]
        coming: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": gone or part is parts[0]}
            for part in parts
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return coming.pop(0) if coming else {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await app(_scope(head), receive, send)
        start = next((m for m in sent if m["type"] == "http.response.start"), None)
        if start is None:
            return 0, {}, b""
        whole = b"".join(m.get("body", b"") for m in sent[1:])
        return start["status"], dict(start["headers"]), whole

    def read(data: bytes) -> None:
        head, _, body = data.partition(b"\n\n")
        said.clear()
        status, headers, answer = loop.run_until_complete(ask(head, body))
        if status >= 500 or said:
            raise NotRight(f"{status}: {said or answer[:200]!r}")
        if turns._inside:
            raise NotRight("a place that nobody gave back")
        if any(headers.get(k.encode()) != v.encode() for k, v in HEADERS.items()) and status:
            raise NotRight(f"{status}: a header is missing")
        if status and headers.get(b"content-type") == b"application/json":
            json.loads(answer)
        if status != 200:
            raise OSError(f"status {status}")

    return read


def _mutate(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    head, _, body = data.partition(b"\n\n")
    if rng.random() < 0.6 or not body:
        head = mutate_words(rng, head, ())
    else:
        body = mutate_media(rng, body, ())
    return head + b"\n\n" + body


KINDS = (
    Kind(
        "request",
        "HTTP requests to qmdd demo: addresses, headers, bodies",
        _seeds,
        _read,
        (_mutate,),
        cases=40_000,
    ),
)
