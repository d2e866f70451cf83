"""The page: whole, offline, the same again; nothing that a bundle says becomes markup."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import Markup

from qmdd.exporter.report import counts, plots, svg
from qmdd.exporter.report.gather import Asked, Gathered, gather
from qmdd.exporter.report.page import page, size_in_words
from qmdd.exporter.report.pictures import heat_map, residual
from qmdd.models.histogram import Histogram

Changed = Callable[[Callable[[dict[str, Any]], None]], Path]
Invoke = Callable[..., Any]

_VOID = {"meta", "link", "img", "line", "br"}


class Reader(HTMLParser):
    """Checks that elements close in order; keeps tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def whole(gathered: Gathered) -> str:
    return page(gathered)


def test_it_is_whole(whole: str, gathered: Gathered) -> None:
    found = _read(whole)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for tag, a in found.tags if tag == "a"]
    assert targets
    assert all(target and target[1:] in ids for target in targets)
    pictures = [a for tag, a in found.tags if tag == "svg" and a.get("role") == "img"]
    titles = [tag for tag, _ in found.tags if tag == "title"]
    assert len(titles) == len(pictures) + 1  # the page's own
    layers = gathered.data["quantizers"]["layers"]
    assert len(pictures) == 1 + 2 * len(layers) + len(gathered.data["weights"]["layers"])
    assert all(a.get("alt") for tag, a in found.tags if tag == "img")


def test_it_asks_nobody(whole: str) -> None:
    found = _read(whole)
    assert not {"script", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        for name in ("src", "href", "action", "srcset", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in whole.replace("url(#hatch)", "")
    assert "@import" not in whole


def test_it_is_the_same_again(
    whole: str, bundle: Path, checkpoint: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qmdd.exporter.report import gather as room

    monkeypatch.setattr(room, "_now", lambda: "another day")
    again = page(gather(bundle, Asked(checkpoint=checkpoint, images=images, threads=1)))
    assert re.sub("<time>.*?</time>", "", again) == re.sub("<time>.*?</time>", "", whole)


EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


def _poison(value: Any, key: str = "") -> Any:
    """Every text of a manifest that nothing is checked by."""
    kept = ("sha256", "dtype", "layout", "color", "activation", "name", "runtime")
    if isinstance(value, dict):
        return {k: _poison(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poison(v, key) for v in value]
    return EVIL if isinstance(value, str) and key not in kept else value


def test_nothing_becomes_markup(changed: Changed) -> None:
    def poison(manifest: dict[str, Any]) -> None:
        kept = {key: manifest[key] for key in ("files", "input", "output")}
        plan = [{**_poison(layer), "name": EVIL} for layer in manifest["plan"]]
        new = {**_poison(manifest), **kept, "plan": plan, EVIL: EVIL}
        manifest.clear()
        manifest.update(new)
        manifest["tools"][EVIL] = EVIL

    copy = changed(poison)
    (copy / "devices").mkdir()
    report = {
        "schema": 1,
        "host": {"destination": EVIL},
        "state": EVIL,
        "error": EVIL,
        "time": EVIL,
        "bench": {"configurations": [{"rows": [{"name": EVIL, "times": {"median_ms": 1}}]}]},
        "facts": {"jetson": {"model": EVIL}},
    }
    (copy / "devices" / "<b>.json").write_text(json.dumps(report), encoding="utf-8")
    (copy / "devices" / "<i>.json").write_text("no", encoding="utf-8")
    found = _read(page(gather(copy, Asked(golden=True, threads=1))))
    assert "script" not in {tag for tag, _ in found.tags}
    assert not {"b", "i"} & {tag for tag, _ in found.tags}
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert "".join(found.text).count("{{7*7}}") > 10  # it was there, as text


def test_wrong_types_are_missing_values(changed: Changed) -> None:
    """A manifest may hold anything beside what the runtime relies on."""
    kept = ("schema", "arch", "bits", "target", "files", "input", "output", "threshold")
    for odd in (None, 7, "text", [1, "a", None, {}], {"a": {"b": []}}, True, 10**400):

        def change(manifest: dict[str, Any], odd: Any = odd) -> None:
            for key in manifest:
                if key not in kept:
                    manifest[key] = odd

        copy = changed(change)
        try:
            _read(page(gather(copy, Asked(golden=True, threads=1))))
        finally:
            import shutil

            shutil.rmtree(copy)


def test_full_precision(
    tmp_path: Path, settle: Any, image_folder: Path, images: list[Path]
) -> None:
    """No codes, no quantizers; the page says so."""
    from qmdd.exporter.export import export_bundle
    from qmdd.exporter.source import source_from_network
    from qmdd.models import build_detector

    network = settle(build_detector("resnet23", 32, width=1 / 8))
    source = source_from_network(network, "qmdd_test:twin")
    export_bundle(source, tmp_path / "bundle", images=images[:1], verify=False)
    found = gather(tmp_path / "bundle", Asked(golden=True, images=images[:1], threads=1))
    _read(page(found))
    assert found.data["verdict"][0]["answer"] == "logits equal within the bar"


def test_command(
    bundle: Path, checkpoint: Path, images: list[Path], tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "report.html"
    given = ("--checkpoint", checkpoint, "--images", images[0], "--threads", 1)
    done = invoke("report", bundle, "-o", out, *given)
    assert done.exit_code == 0, done.stderr
    assert "Exact?     yes, code by code" in done.stdout
    _read(out.read_text(encoding="utf-8"))
    before = out.read_bytes()
    refused = invoke("report", bundle, "-o", out, *given)
    assert refused.exit_code == 1
    assert "exists; choose another --output or add --force" in refused.stderr
    assert out.read_bytes() == before
    told = invoke("report", bundle, "--json", "--golden")
    assert json.loads(told.stdout)["verdict"][0]["answer"] == "yes, code by code"


def test_names_that_are_no_text(
    bundle: Path, images: list[Path], tmp_path: Path, invoke: Invoke
) -> None:
    """Of images, and of the bundle: a file system takes any bytes."""
    odd = tmp_path / os.fsdecode(b"\xff.png")
    shutil.copy(images[0], odd)
    place = tmp_path / os.fsdecode(b"b\xfe")
    shutil.copytree(bundle, place)
    out = tmp_path / "report.html"
    done = invoke("report", place, "-o", out, "--golden", "--images", odd)
    assert done.exit_code == 0, done.stderr
    assert "\\udcff.png" in out.read_text(encoding="utf-8")


def test_without_jinja(
    bundle: Path, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "qmdd.exporter.report.page", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = invoke("report", bundle, "-o", tmp_path / "report.html")
    assert done.exit_code == 1
    assert "jinja2 is not installed; run: pip install 'qmdd[report]'" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ((), 2, "name the file to write with -o"),
        (("-o", "r.html", "--golden", "--checkpoint", "x"), 2, "--golden excludes"),
        (("-o", "r.html", "--bench", "--bench-json", "x"), 2, "exclude each other"),
        (("-o", "r.html", "--module", "a:b", "--checkpoint", "x"), 2, "exclude each other"),
        (("-o", "none/r.html"), 1, "no such folder"),
        (("-o", "r.html", "--bench-json", "none.json"), 1, "none.json: cannot be read"),
        (("-o", "r.html", "--checkpoint", "none.safetensors"), 1, "none.safetensors"),
    ],
)
def test_errors(
    bundle: Path,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("report", bundle, *given)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr
    assert not any(tmp_path.iterdir())


def test_a_damaged_bundle_is_refused(changed: Changed, invoke: Invoke, tmp_path: Path) -> None:
    copy = changed(lambda _m: None)
    with open(copy / "model.onnx", "ab") as stream:
        stream.write(b"\0")
    done = invoke("report", copy, "-o", tmp_path / "report.html")
    assert done.exit_code == 1
    assert "model.onnx" in done.stderr
    assert not (tmp_path / "report.html").exists()


# Parts of it


def test_markup_is_escaped() -> None:
    told = svg.element("text", "a < b", Markup("<b>c</b>"), x='"', class_="t")
    assert told == '<text x="&#34;" class="t">a &lt; b<b>c</b></text>'
    assert "&lt;script&gt;" in plots.bar_chart("<script>", [plots.Bar("<script>", 1, "<script>")])
    assert html.escape("<") in svg.text("<", 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "want"),
    [(0, 10, [0, 5, 10]), (-0.2, 6.1, [0, 2, 4, 6]), (0, 0.003, [0, 0.001, 0.002, 0.003])],
)
def test_ticks(low: float, high: float, want: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(want)


def test_bars_keep_every_value_or_say_so() -> None:
    values = np.concatenate([np.linspace(-1, 1, 10_000), [50.0]]).astype(np.float32)
    seen = Histogram()
    seen.add(values)
    table = np.array([-0.5, 0.25, 1.5, 1e30, np.inf], dtype=np.float32)
    found = counts.bars(seen, table)
    last = found["first"] + found["width"] * len(found["counts"])
    assert found["first"] <= -1
    assert 1.5 <= last < 3  # the outlier and the far thresholds are not shown
    assert sum(found["counts"]) == 10_000
    assert found["outside"] == pytest.approx(1 / 10_001)
    assert len(found["counts"]) <= counts.BARS


def test_one_value_alone_has_a_plot() -> None:
    seen = Histogram()
    seen.add(np.zeros(5, dtype=np.float32))
    found = counts.bars(seen, np.array([np.inf], dtype=np.float32))
    assert sum(found["counts"]) == 5
    assert "NaN" not in plots.step_plot("zero", found, [3.4e38])


def test_step_plot_counts_thresholds() -> None:
    """At the right end stands the number of thresholds that have been passed."""
    seen = {"first": 0.0, "width": 1.0, "counts": [1, 2, 3, 4]}
    frame = plots._frame(seen, 3)
    for table, code in (([-1.0, 2.0, 9.0], 2), ([-9.0, -8.0, -7.0], 3), ([5.0, 6.0, 7.0], 0)):
        line = plots.step_plot("t", seen, table)
        step = re.search(r'd="([^"]*)" class="step"', line)
        assert step is not None
        x, y = (float(number) for number in re.split("[ML]", step[1])[-1].split())
        assert (x, y) == pytest.approx((frame.x(4), frame.y(code)), abs=0.01)


def test_tables_of_channels() -> None:
    """Eleven channels: the second from each end, and the middle one; infinities are floats."""
    first = np.arange(11, dtype=np.float32)[:, None]
    table = np.concatenate([first, first + 20, np.full((11, 1), np.inf, np.float32)], axis=1)
    most = float(np.finfo(np.float32).max)
    assert counts.tables_of_channels(table) == {
        "early": [1.0, 21.0, most],
        "median": [5.0, 25.0, most],
        "late": [9.0, 29.0, most],
    }


def test_pictures() -> None:
    """A flat image has a grey residual; a flat map is a picture, too."""
    import base64
    import io

    from PIL import Image

    def pixels(uri: str) -> np.ndarray:
        data = base64.b64decode(uri.partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    flat = pixels(residual(np.full((3, 8, 10), 77, dtype=np.uint8)))
    assert flat.shape == (8, 10, 3)
    assert np.abs(flat.astype(int) - 128).max() <= 2
    ramp = pixels(heat_map(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)))
    assert tuple(ramp[0, 0]) == (0, 34, 78)
    assert tuple(ramp[-1, -1]) == (254, 232, 56)
    assert pixels(heat_map(np.ones((2, 2), dtype=np.float32))).shape == (2, 2, 3)


def test_sizes_in_words() -> None:
    assert [size_in_words(n) for n in (None, 12, 1_500, 63_645_772)] == [
        "-",
        "12 B",
        "1.5 kB",
        "63.65 MB",
    ]


def _colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})[0-9a-f]{0,2};", block))


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast() -> None:
    """WCAG 2.2: 4.5 to 1 for words, 3 to 1 for what a plot is made of; light, dark, on paper."""
    from qmdd.exporter.report.page import TEMPLATES

    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    blocks = [_colours(block) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    assert len(blocks) == 3
    for colours in blocks:
        for ground in (colours["paper"], colours["card"]):
            for word in ("ink", "soft", "yes", "no", "open", "link"):
                assert _contrast(colours[word], ground) >= 4.5, word
            for part in ("line", "bar", "other"):
                assert _contrast(colours[part], ground) >= 3, part
        assert _contrast(colours["line"], colours["hills"]) >= 3
