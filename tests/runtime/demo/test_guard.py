"""Requests that another site's page makes a browser send."""

from __future__ import annotations

import socket

import pytest

from qmdd.runtime.demo.guard import Guard, host_of

URL = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", "127.1.2.3"]
)
def test_names_of_this_machine_are_its_own(client, host: str) -> None:
    assert client.get("/api/bundle", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.20:8000",
        "",
        "127.0.0.1@evil.example",
        "[::1",
    ],
)
def test_a_name_that_was_pointed_here_is_refused(client, picture, host: str) -> None:
    """DNS rebinding: to the browser, the page and this server are one site."""
    for path in ("/", "/api/bundle"):
        answer = client.get(path, headers={"host": host})
        assert answer.status_code == 403
        assert "by a name that is not this server's" in answer.json()["error"]
        assert "content-security-policy" in answer.headers
    answer = client.post("/api/score", content=picture(), headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://[broken"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": URL},
    ],
)
def test_a_page_of_another_site_cannot_post(client, picture, headers: dict[str, str]) -> None:
    answer = client.post("/api/score", content=picture(), headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]


def test_its_own_page_and_programs_can(client, picture) -> None:
    for headers in ({}, {"origin": URL, "sec-fetch-site": "same-origin"}):
        answer = client.post("/api/score", content=picture(), headers=headers)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


def test_a_server_that_is_open_to_others_has_more_names() -> None:
    async def app(*_args: object) -> None: ...

    guard = Guard(app, "0.0.0.0")  # noqa: S104 - what a user may ask for
    own = socket.gethostname()
    for host in ("192.168.1.20:8000", "[fe80::1]:8000", f"{own}:8000", f"{own}.local", "localhost"):
        assert guard.fault("GET", {"host": host}) is None
    assert guard.fault("GET", {"host": "evil.example"})
    named = Guard(app, "jetson.lab")
    assert named.fault("GET", {"host": "jetson.lab:80"}) is None
    assert named.fault("GET", {"host": "other.lab:80"})


@pytest.mark.parametrize("authority", ["a b", "x/y", "x?y", "u@h", "[::1", ""])
def test_what_is_no_host_has_no_name(authority: str) -> None:
    assert host_of(authority) == ""
