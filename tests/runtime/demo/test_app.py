"""What the page's server answers, to good requests and to bad ones."""

from __future__ import annotations

import base64
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from qmdd.runtime.demo import body
from qmdd.runtime.demo.answer import MAX_PIXELS, Answerer
from qmdd.runtime.demo.app import demo_app
from qmdd.runtime.demo.body import MAX_BYTES
from qmdd.runtime.demo.turns import Turns
from qmdd.runtime.errors import SessionError

URL = "http://127.0.0.1:8000"
Picture = Callable[..., bytes]


def send(client: TestClient, data: bytes | Iterator[bytes], query: str = "", **headers: str):
    return client.post(f"/api/score{query}", content=data, headers=headers)


def assert_alive(client: TestClient, picture: Picture) -> None:
    assert send(client, picture(200)).json()["verdict"] == "fake"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_score_and_what_led_to_it(client: TestClient, picture: Picture, form: str) -> None:
    answer = send(client, picture(160, form=form))
    found = answer.json()
    assert answer.status_code == 200
    assert found["score"] == pytest.approx(1 / (1 + np.exp(-(160 - 128) / 32)), abs=1e-3)
    assert (found["verdict"], found["threshold"]) == ("fake", 0.5)
    assert (found["width"], found["height"], found["seen_width"]) == (40, 40, 40)
    assert found["decode_ms"] > 0
    assert found["model_ms"] > 0
    assert "npr" not in found
    assert send(client, picture(100)).json()["verdict"] == "real"


def test_a_larger_image_is_seen_in_part(client: TestClient, picture: Picture) -> None:
    found = send(client, picture(side=101)).json()
    assert (found["width"], found["seen_width"], found["seen_height"]) == (101, 64, 64)


def test_the_npr_picture_is_grey_where_pixels_equal_the_first_of_their_cell(
    client: TestClient,
) -> None:
    pixels = np.full((40, 40, 3), 100, np.uint8)
    pixels[1, 1] = 110
    pixels[3, 2] = 0
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    address = send(client, stream.getvalue(), "?npr=1").json()["npr"]
    kind, _, text = address.partition(",")
    assert kind == "data:image/png;base64"
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert drawn.shape == (40, 40, 3)
    assert (drawn[1, 1] == 128 + 4 * 10).all()
    assert (drawn[3, 2] == 0).all()
    drawn = drawn.copy()
    drawn[1, 1] = drawn[3, 2] = 128
    assert (drawn == 128).all()


def test_a_network_that_sees_pixels_has_no_npr_picture(
    make_bundle, tiny_manifest, picture: Picture
) -> None:
    from qmdd.runtime.detector import Detector

    manifest = tiny_manifest() | {"source": {"config": {"representation": "rgb"}}}
    seen = Answerer(Detector.open(make_bundle(manifest), threads=1))
    assert seen.answer(picture(), picture=True)["npr"] is None


def test_the_threshold_may_be_chosen(answerer: Answerer, picture: Picture) -> None:
    strict = Answerer(answerer._detector, threshold=0.9)
    assert strict.answer(picture(160))["verdict"] == "real"
    assert strict.about()["threshold"] == 0.9


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"It was a dark and stormy night.\n" * 99, 422, "not an image in a supported format"),
        (b"", 400, "nothing was sent"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 422, "not an image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 422, "not an image"),
        (b"P6 99999999 99999999 255\n", 422, "megapixels"),
    ],
)
def test_what_is_no_image_is_told(
    client: TestClient, picture: Picture, data: bytes, status: int, said: str
) -> None:
    answer = send(client, data)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert_alive(client, picture)


def test_a_damaged_image_is_told(client: TestClient, picture: Picture) -> None:
    whole = picture(side=400, form="JPEG")
    answer = send(client, whole[: len(whole) // 2])
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("cannot be read: image file is truncated")
    assert_alive(client, picture)


def test_an_image_that_is_too_small_is_told(client: TestClient, picture: Picture) -> None:
    answer = send(client, picture(side=20))
    assert answer.status_code == 422
    assert "20x20 pixels is too small" in answer.json()["error"]


def test_a_decompression_bomb_is_refused_undecoded(
    client: TestClient, picture: Picture, bomb: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(bomb) < MAX_BYTES
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _self: pytest.fail("decoded"))
    answer = send(client, bomb)
    assert answer.status_code == 422
    assert "megapixels" in answer.json()["error"]


def test_an_image_between_the_demos_bound_and_everybodys_is_refused(
    client: TestClient,
) -> None:
    answer = send(client, b"P6 6000 6000 255\n" + bytes(99))
    assert MAX_PIXELS < 6000 * 6000
    assert answer.status_code == 422
    assert "more than 32 megapixels" in answer.json()["error"]


@pytest.mark.parametrize("length", [True, False])
def test_fifty_megabytes_are_refused_and_not_kept(
    client: TestClient, picture: Picture, length: bool
) -> None:
    """With its length in a header, and without one."""
    count, block = 50, bytes(1 << 20)

    def chunks() -> Iterator[bytes]:
        for _ in range(count):
            yield block

    answer = send(client, block * count if length else chunks())
    assert answer.status_code == 413
    assert "larger than 10 MiB" in answer.json()["error"]
    assert_alive(client, picture)


def test_one_byte_more_than_allowed_is_too_much(client: TestClient, picture: Picture) -> None:
    fits = picture(200) + bytes(MAX_BYTES - len(picture(200)))
    assert send(client, fits).status_code == 200
    assert send(client, fits + b"\0").status_code == 413


def test_a_form_is_refused_whatever_its_file_is_called(
    client: TestClient, picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "../../../../tmp/<img src=x onerror=alert(1)>.png"
    answer = client.post("/api/score", files={"image": (name, picture(), "image/png")})
    assert answer.status_code == 415
    assert "--data-binary" in answer.json()["error"]
    assert "onerror" not in answer.text
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def test_nothing_is_written(
    client: TestClient, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a temporary file, of an image that is larger than what is usually kept in memory."""
    import builtins

    made = []
    opened, low = builtins.open, os.open
    monkeypatch.setattr("builtins.open", lambda *a, **k: (made.append(a), opened(*a, **k))[1])
    monkeypatch.setattr(os, "open", lambda *a, **k: (made.append(a), low(*a, **k))[1])
    data = picture(200) + bytes(4 << 20)
    assert send(client, data, "?npr=1").status_code == 200
    assert [
        call for call in made if len(call) > 1 and call[1] not in ("r", "rb", os.O_RDONLY)
    ] == []


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page/page.js", "/app.py", "//x/"]
)
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"{URL}{path}")
    assert answer.status_code == 404
    assert "no such address" in answer.json()["error"]


def test_the_page_asks_nobody_else_and_has_no_inline_script(client: TestClient) -> None:
    for path in ("/", "/page.js", "/page.css", "/icon.svg"):
        answer = client.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        foreign = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in foreign
        assert "https:" not in foreign
    page = client.get("/").text
    assert "<script src=" in page
    assert " style=" not in page
    assert " on" not in page.partition("<body>")[0]


def test_what_the_page_is_told(client: TestClient) -> None:
    found = client.get("/api/bundle").json()
    assert found["arch"] == "resnet23"
    assert found["bundle"] == "bundle"
    assert found["max_bytes"] == MAX_BYTES
    assert found["max_side"] == 64


def test_other_methods_are_told(client: TestClient) -> None:
    answer = client.get("/api/score")
    assert answer.status_code == 405
    assert "POST /api/score" in answer.json()["error"]


class Slow:
    """Stands in for what scores: it waits until it is let go, and counts."""

    def __init__(self) -> None:
        self.go, self.lock = threading.Event(), threading.Lock()
        self.inside = self.most = self.started = 0

    def about(self) -> dict[str, object]:
        return {}

    def answer(self, data: bytes, *, picture: bool = False) -> dict[str, object]:
        with self.lock:
            self.inside += 1
            self.started += 1
            self.most = max(self.most, self.inside)
        assert self.go.wait(20)
        with self.lock:
            self.inside -= 1
        return {"length": len(data)}


def test_twenty_at_once_some_wait_and_the_rest_are_told_to_come_again() -> None:
    slow, turns = Slow(), Turns(2, 5)
    with TestClient(demo_app(slow, turns=turns), base_url=URL) as client:  # one loop for all
        with ThreadPoolExecutor(20) as pool:
            sent = [pool.submit(send, client, bytes(index + 1)) for index in range(20)]
            turned_away = list(itertools.islice(as_completed(sent, timeout=30), 13))
            assert {item.result().status_code for item in turned_away} == {503}
            assert turns._inside == 7
            slow.go.set()
            answers = [item.result() for item in sent]
        codes = sorted(answer.status_code for answer in answers)
        assert codes == [200] * 7 + [503] * 13
        assert slow.most == 2
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.headers["retry-after"] == "2"
        assert "busy" in busy.json()["error"]
        assert send(client, b"later").json() == {"length": 5}
        assert turns._inside == 0


def test_a_sender_that_sends_nothing_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import anyio

    async def silent() -> object:
        yield b"begun"
        await anyio.sleep(60)

    with pytest.raises(body.Refused, match="not sent within") as caught:
        anyio.run(body.read_image, {}, silent(), 0.05)
    assert caught.value.status == 408


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SessionError("the model fails"), "the model fails"),
        (MemoryError(), "not enough memory"),
        (ZeroDivisionError("x"), "the server failed at this image"),
    ],
)
def test_a_failure_of_its_own_is_told_on_both_sides(error: Exception, said: str) -> None:
    def fail(_data: bytes, *, picture: bool) -> dict[str, object]:
        raise error

    lines: list[str] = []
    failing = SimpleNamespace(answer=fail)
    client = TestClient(demo_app(failing, turns=Turns(1, 0), say=lines.append), base_url=URL)
    for _ in range(2):  # its place is free again
        answer = send(client, b"image")
        assert answer.status_code == 500
        assert said in answer.json()["error"]
    assert len(lines) == 2


def test_a_sender_that_goes_away_is_no_fault_of_the_server(answerer: Answerer) -> None:
    """Its place is free again, and nothing is told of a defect."""
    import anyio

    said: list[str] = []
    turns = Turns(1, 0)
    app = demo_app(answerer, turns=turns, say=said.append)
    coming = [{"type": "http.request", "body": b"\x89PNG", "more_body": True}]

    async def receive() -> dict[str, object]:
        return coming.pop() if coming else {"type": "http.disconnect"}

    async def send_nowhere(_message: object) -> None:
        return

    scope = {
        **{"type": "http", "http_version": "1.1", "method": "POST", "path": "/api/score"},
        **{"query_string": b"", "headers": [(b"host", b"localhost")], "scheme": "http"},
    }
    anyio.run(app, scope, receive, send_nowhere)
    assert said == []
    with turns.place():
        pass


@pytest.mark.parametrize("size", ["9" * 5000, "9" * 30])
def test_a_length_that_no_number_holds(client: TestClient, size: str) -> None:
    answer = send(client, b"\x89PNG", **{"content-length": size})
    assert answer.status_code == 413
