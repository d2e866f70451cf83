"""The demo's page in a real browser, served by the command as a user starts it."""

from __future__ import annotations

import base64
import http.client
import io
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from PIL import Image

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install 'qmdd[dev]'"
)

SAMPLES = Path(__file__).parents[2] / "exporter" / "samples_data"
FAKE, REAL = SAMPLES / "fake_span_moose.webp", SAMPLES / "real_moose.webp"
#: Screenshots are kept here.
SHOTS = Path(__file__).parents[2] / "out" / "screenshots"
SIZES = {"wide": (1280, 900), "phone": (390, 844)}


class Server(NamedTuple):
    url: str
    process: subprocess.Popen[str]

    def post(self, data: bytes, query: str = "") -> tuple[int, str]:
        host = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            host.request("POST", f"/api/score{query}", body=data)
            answer = host.getresponse()
            return answer.status, answer.read().decode()
        finally:
            host.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in detector, as ``qmdd export`` makes it."""
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    command = [sys.executable, "-m", "qmdd.cli.main", "export", "--bits", "2", "--no-verify"]
    command += ["-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "qmdd.cli.main", "demo", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--queue", "64"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield Server(process.stdout.readline().strip(), process)
    process.kill()
    process.communicate()


@pytest.fixture
def visit(browser, server: Server) -> Iterator[Callable[..., object]]:
    """Open the page; at the end nothing may have been said on the console or asked elsewhere."""
    contexts, said, asked = [], [], []

    def go(size: str = "wide", scheme: str = "light"):
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        playwright.expect(page.locator("#about")).to_contain_text("bits")
        return page

    go.said = said
    yield go
    for context in contexts:
        context.close()
    assert said == []
    own = (server.url, "blob:", "data:")
    assert [url for url in asked if not url.startswith(own)] == []


def choose(page, path: Path | dict[str, object]) -> None:
    page.set_input_files("#file", path)


def verdict_of(page) -> str:
    page.wait_for_selector("#result:visible")
    return page.inner_text("#verdict")


def error_of(page) -> str:
    page.wait_for_selector("#error:visible")
    assert not page.is_visible("#result")
    return page.inner_text("#error")


def drop(page, data: bytes, name: str, kind: str = "image/webp") -> None:
    """What a browser does when a file is dropped."""
    handle = page.evaluate_handle(
        """([text, name, kind]) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const moved = new DataTransfer();
            moved.items.add(new File([bytes], name, { type: kind }));
            return moved;
        }""",
        [base64.b64encode(data).decode(), name, kind],
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": handle})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_chosen_image_gets_its_verdict(visit, size: str, scheme: str) -> None:
    page = visit(size, scheme)
    SHOTS.mkdir(parents=True, exist_ok=True)
    choose(page, FAKE)
    assert verdict_of(page) == "Fake"
    assert float(page.inner_text("#score")) > 0.9
    assert page.inner_text("#name") == FAKE.name
    assert page.inner_text("#model").endswith(" ms")
    assert page.inner_text("#size").split() == ["256", "\N{MULTIPLICATION SIGN}", "256"]
    for picture in ("#given", "#npr"):
        drawn = "async (image) => { await image.decode(); return image.naturalWidth; }"
        assert page.locator(picture).evaluate(drawn) == 256
    page.screenshot(path=SHOTS / f"demo-{size}-{scheme}.png", full_page=True)
    choose(page, REAL)
    playwright.expect(page.locator("#verdict")).to_have_text("Real")
    wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0


def test_a_dropped_image_gets_its_verdict(visit) -> None:
    page = visit()
    drop(page, REAL.read_bytes(), "moose.webp")
    assert verdict_of(page) == "Real"
    assert page.inner_text("#name") == "moose.webp"


def test_the_keyboard_reaches_the_field(visit) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    with page.expect_file_chooser() as chooser:
        page.click("#drop")
    chooser.value.set_files(FAKE)
    assert verdict_of(page) == "Fake"


@pytest.mark.parametrize(
    "name",
    [
        "../../../etc/passwd",
        "<img src=x onerror=alert(1)>.png",
        "C:\\Windows\\x.png",
        "a\u202eb.png",
    ],
)
def test_a_files_name_is_text_and_nothing_else(visit, name: str) -> None:
    page = visit()
    drop(page, FAKE.read_bytes(), name)
    assert verdict_of(page) == "Fake"
    shown = page.evaluate("(name) => new File([], name).name", name)  # as the browser has it
    assert page.text_content("#name") == shown
    assert page.locator("#name *").count() == 0
    drop(page, b"no image", name, "text/plain")
    error_of(page)
    assert page.text_content("#error").startswith(f"{shown}: not an image in a supported format")
    assert page.locator("#error *").count() == 0
    visit.said[:] = [line for line in visit.said if "422" not in line]


def _png_of(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


def _small() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("notes.txt", b"It was a dark and stormy night.\n", "not an image in a supported format"),
        ("cut.webp", FAKE.read_bytes()[:900], "cut.webp: cannot be read"),
        ("bomb.png", _png_of(30_000), "more than 32 megapixels"),
        ("small.png", _small(), "16x16 pixels is too small"),
        ("empty.png", b"", "nothing was sent"),
    ],
)
def test_what_cannot_be_scored_is_told(visit, name: str, data: bytes, said: str) -> None:
    page = visit()
    choose(page, {"name": name, "mimeType": "image/png", "buffer": data})
    text = error_of(page)
    assert text.startswith(f"{name}: ")
    assert said in text
    # The browser itself notes the status.
    visit.said[:] = [line for line in visit.said if "the server responded with" not in line]
    choose(page, FAKE)
    assert verdict_of(page) == "Fake"


def test_fifty_megabytes_are_not_even_sent(visit, server: Server, tmp_path: Path) -> None:
    page = visit()
    large = tmp_path / "large.png"
    with large.open("wb") as stream:
        stream.truncate(50 << 20)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    choose(page, large)
    assert "larger than 10 MiB" in error_of(page)
    assert sent == []
    # Who sends them all the same, is heard out and told.
    status, text = server.post(bytes(50 << 20))
    assert status == 413
    assert "larger than 10 MiB" in text
    choose(page, FAKE)
    assert verdict_of(page) == "Fake"


def test_twenty_at_once_while_the_page_is_used(visit, server: Server) -> None:
    page = visit()
    data = [FAKE.read_bytes(), REAL.read_bytes()]
    with ThreadPoolExecutor(20) as pool:
        sent = [pool.submit(server.post, data[index % 2], "?npr=1") for index in range(20)]
        choose(page, REAL)
        assert verdict_of(page) == "Real"
        answers = [item.result() for item in sent]
    assert [status for status, _ in answers] == [200] * 20
    assert ['"fake"' in text for _, text in answers] == [True, False] * 10


def test_a_page_of_another_site_cannot_have_an_image_scored(visit, server: Server) -> None:
    page = visit()
    page.goto("about:blank")
    found = page.evaluate(
        """async (url) => {
            const answer = await fetch(url + "api/score", {
                method: "POST", mode: "no-cors", body: "x"
            }).catch(() => null);
            return answer && [answer.type, answer.status];
        }""",
        server.url,
    )
    assert found in (None, ["opaque", 0])
    visit.said.clear()  # the browser says that it was refused


def test_it_ends_when_it_is_told_to_and_the_page_says_so(visit, server: Server) -> None:
    """The last test: the server is gone behind it."""
    page = visit()
    os.kill(server.process.pid, signal.SIGTERM)
    _, errors = server.process.communicate(timeout=20)
    assert server.process.returncode == 0
    assert errors.splitlines() == ["qmdd: Ctrl-C ends it", "qmdd: ended"]
    choose(page, FAKE)
    assert "is qmdd demo still running?" in error_of(page)
    visit.said.clear()  # the browser's own line
