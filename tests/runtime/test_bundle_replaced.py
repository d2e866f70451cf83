"""A bundle that is replaced while it is read: the old one, the new one, or a refusal."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from qmdd.runtime import bundle as bundle_module
from qmdd.runtime.bundle import MODEL, Bundle, manifest_bytes
from qmdd.runtime.deploy.payload import bundle_items
from qmdd.runtime.detector import Detector
from qmdd.runtime.errors import BundleError, DeployError
from qmdd.runtime.files import folder_in_place, sha256_of
from qmdd.runtime.probes import PROBES, probed_model
from qmdd.runtime.renames import exchange

BundleFactory = Callable[..., Path]


@pytest.fixture
def pair(make_bundle: BundleFactory) -> tuple[Path, Path]:
    """A bundle and another one, whose model says something else, and whose threshold is another."""
    first, second = make_bundle(), make_bundle(name="second")
    model = (second / MODEL).read_bytes() + b"\x12\x01x"  # a producer's name: protobuf merges it
    (second / MODEL).write_bytes(model)
    (second / "more").write_bytes(b"more")
    manifest = json.loads((second / "manifest.json").read_bytes())
    for name in (MODEL, "more"):
        path = second / name
        entry = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        manifest["files"][name] = entry
    manifest["threshold"] = 0.25
    (second / "manifest.json").write_bytes(manifest_bytes(manifest))
    return first, second


def swap(one: Path, other: Path) -> None:
    if not exchange(one, other):
        pytest.skip("this file system cannot exchange two names")


def test_what_is_replaced_while_it_is_opened_is_opened_anew(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = bundle_module._check_file, []

    def check(*args: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            swap(*pair)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle_module, "_check_file", check)
    found = Bundle.open(pair[0])
    assert found.threshold == 0.25
    assert found.manifest_sha256 == sha256_of(pair[0] / "manifest.json")


def test_one_that_is_damaged_is_refused_at_once(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (pair[0] / MODEL).write_bytes(b"")
    reads, real = [], bundle_module._read_manifest
    monkeypatch.setattr(
        bundle_module, "_read_manifest", lambda folder: reads.append(1) or real(folder)
    )
    with pytest.raises(BundleError, match="0 bytes where the manifest says"):
        Bundle.open(pair[0])
    assert len(reads) == 2


def test_the_checked_bytes_are_the_loaded_ones(pair: tuple[Path, Path]) -> None:
    opened = Bundle.open(pair[0])
    assert opened.read(MODEL) == (pair[0] / MODEL).read_bytes()
    swap(*pair)
    for load in (
        lambda: opened.read(MODEL),
        lambda: Detector(opened),
        lambda: Detector(opened, runtime="onnxruntime"),
        opened.check_unchanged,
    ):
        with pytest.raises(BundleError, match="was replaced meanwhile; run the same command again"):
            load()
    swap(*pair)
    opened.check_unchanged()
    assert Detector(opened).score(np.full((32, 32, 3), 128, np.uint8)) == pytest.approx(0.5)


def test_a_file_that_only_grew_is_refused(pair: tuple[Path, Path]) -> None:
    opened = Bundle.open(pair[0])
    with (pair[0] / MODEL).open("ab") as stream:
        stream.write(b"\x12\x01x")
    with pytest.raises(BundleError, match=r"model\.onnx: changed"):
        Detector(opened)


def test_probes_are_of_the_same_bundle(pair: tuple[Path, Path]) -> None:
    (pair[0] / PROBES[MODEL]).write_bytes(b"")
    manifest = json.loads((pair[0] / "manifest.json").read_bytes())
    empty = {"sha256": sha256_of(pair[0] / PROBES[MODEL]), "bytes": 0}
    manifest["files"][PROBES[MODEL]] = empty
    (pair[0] / "manifest.json").write_bytes(manifest_bytes(manifest))
    opened = Bundle.open(pair[0])
    assert probed_model(opened) == (pair[0] / MODEL).read_bytes()
    swap(*pair)
    with pytest.raises(BundleError, match="replaced meanwhile"):
        probed_model(opened)


@contextmanager
def replacing(place: Path, sources: tuple[Path, Path]) -> Iterator[list[int]]:
    """While the block runs, ``place`` is replaced by copies of ``sources`` in turn."""
    ended, count = threading.Event(), [0]

    def work() -> None:
        while not ended.is_set():
            with folder_in_place(place, replace=True, marker="manifest.json") as folder:
                for source in sources[count[0] % 2].rglob("*"):
                    if source.is_file():
                        target = folder / source.relative_to(sources[count[0] % 2])
                        target.parent.mkdir(exist_ok=True)
                        os.link(source, target)
            count[0] += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield count
    finally:
        ended.set()
        worker.join()


def test_detectors_of_a_bundle_that_keeps_being_replaced(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Whatever is opened is whole, and the model is the one that goes with the threshold."""
    place, refused, found = tmp_path / "place", 0, set()
    known = {0.5: (pair[0] / MODEL).read_bytes(), 0.25: (pair[1] / MODEL).read_bytes()}
    with folder_in_place(place):
        pass
    with replacing(place, pair) as count:
        while len(found) < 2 or count[0] < 60:
            try:
                opened = Bundle.open(place)
                assert opened.read(MODEL) == known[opened.threshold]
                found.add(opened.threshold)
            except BundleError as error:
                text = str(error)
                # Of a file that is another one by now: gone, of another size or of another hash.
                words = ("replaced meanwhile", "missing", "bytes where the manifest", "differs")
                assert any(said in text for said in words), text
                refused += 1
            assert count[0] < 5000
    assert found == {0.5, 0.25}


def test_a_file_that_changes_before_it_is_sent_to_a_device_is_refused(
    pair: tuple[Path, Path],
) -> None:
    items = {item.name: item for item in bundle_items(Bundle.open(pair[0]))}
    with items[MODEL].open() as stream:
        assert stream.read() == (pair[0] / MODEL).read_bytes()
    swap(*pair)
    with pytest.raises(DeployError, match=r"model\.onnx: changed since the deployment began"):
        items[MODEL].open()


def test_a_bundle_that_is_another_one_by_now_is_not_deployed(pair: tuple[Path, Path]) -> None:
    opened = Bundle.open(pair[0])
    swap(*pair)
    with pytest.raises(DeployError, match="was replaced meanwhile; deploy again"):
        bundle_items(opened)
