"""The command itself: it says where the page is, refuses in a line, and ends when it is told to."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def run(*args: object, code: str = "") -> subprocess.Popen[str]:
        script = f"{code}\nfrom qmdd.cli.main import main\nmain()"
        process = subprocess.Popen(
            [sys.executable, "-c", script, "demo", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return urlsplit(process.stdout.readline().strip()).netloc


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(
    start: Start, make_bundle: Callable[..., Path], picture: Callable[..., bytes], number: int
) -> None:
    process = start(make_bundle(), "--port", 0)
    where = address(process)
    assert where.startswith("127.0.0.1:")
    client = http.client.HTTPConnection(where, timeout=30)
    client.request("POST", "/api/score", body=picture())
    assert b'"verdict":"fake"' in client.getresponse().read()
    # A connection that is open, and one in the middle of sending, keep nobody waiting for long.
    half = socket.create_connection((urlsplit(f"//{where}").hostname, int(where.split(":")[1])))
    half.sendall(
        f"POST /api/score HTTP/1.1\r\nHost: {where}\r\nContent-Length: 99\r\n\r\nx".encode()
    )
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=30)
    half.close()
    client.close()
    assert process.returncode == 0
    assert said.splitlines() == ["qmdd: Ctrl-C ends it", "qmdd: ended"]


def test_others_are_let_in_only_where_that_is_asked_for(
    start: Start, make_bundle: Callable[..., Path]
) -> None:
    process = start(make_bundle(), "--port", 0, "--host", "0.0.0.0")  # noqa: S104 - asked for
    where = address(process)
    assert where.startswith("0.0.0.0:")
    client = http.client.HTTPConnection(where, timeout=30)
    client.request("GET", "/api/bundle")
    assert client.getresponse().status == 200
    client.close()
    process.terminate()
    assert "there is no password" in process.communicate(timeout=30)[1]


def test_refusals_are_one_line(start: Start, make_bundle: Callable[..., Path]) -> None:
    bundle = make_bundle()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        missing = "import sys; sys.modules['uvicorn'] = None"
        running = [
            (start(bundle, "--port", port), f"port {port} of 127.0.0.1: Address already in use;"),
            (start(bundle, "--host", "203.0.113.7"), "203.0.113.7: no address of this machine;"),
            (start(bundle / "nothing"), "no such bundle"),
            (start(bundle, code=missing), "run: pip install 'qmdd[demo]'"),
        ]
        for process, said in running:
            out, errors = process.communicate(timeout=30)
            assert (process.returncode, out) == (1, "")
            assert len(errors.splitlines()) == 1
            assert said in errors
