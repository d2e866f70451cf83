"""Bundles: what is opened is what was exported; anything else is refused by name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.runtime import bundle as bundle_module
from qmdd.runtime.bundle import MAX_MANIFEST_BYTES, Bundle, manifest_bytes
from qmdd.runtime.errors import BundleError

BundleFactory = Callable[..., Path]
ManifestFactory = Callable[[], dict[str, Any]]
FILES = ["model.onnx", "parity/golden.safetensors"]
_DROP = object()
#: Keys below the top, as :func:`_changed` takes them.
DEEPER = ["input.min_side", "input.multiple", "output.name", "files.extra"]


def _changed(manifest: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """``manifest`` with the entry at dotted ``path`` set or dropped."""
    *parents, last = path.split(".")
    inner = manifest
    for key in parents:
        inner = inner[key]
    if value is _DROP:
        del inner[last]
    else:
        inner[last] = value
    return manifest


def test_properties_say_what_the_manifest_says(make_bundle: BundleFactory) -> None:
    folder = make_bundle()
    bundle = Bundle.open(str(folder))
    assert bundle.path == folder
    assert (bundle.arch, bundle.bits, bundle.target) == ("resnet23", 2, "onnx")
    assert bundle.threshold == 0.5
    assert bundle.model_path == folder / "model.onnx"
    assert bundle.model_bytes == bundle.model_path.stat().st_size
    assert bundle.golden_path == folder / "parity" / "golden.safetensors"
    assert bundle.sides == {"min_side": 32, "multiple": 2, "max_side": 64}


def test_a_bundle_without_parity_has_no_golden_path(
    make_bundle: BundleFactory, tiny_manifest: ManifestFactory
) -> None:
    manifest = tiny_manifest()
    del manifest["files"]["parity/golden.safetensors"]
    assert Bundle.open(make_bundle(manifest)).golden_path is None


def test_unknown_keys_and_further_files_are_tolerated(
    make_bundle: BundleFactory, tiny_manifest: ManifestFactory
) -> None:
    folder = make_bundle({**tiny_manifest(), "calibration": {"new": [1, 2]}})
    (folder / "model.engine").write_bytes(b"built on the device")
    assert Bundle.open(folder).manifest["calibration"] == {"new": [1, 2]}


def test_a_link_to_a_bundle_is_a_bundle(make_bundle: BundleFactory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(make_bundle())
    assert Bundle.open(tmp_path / "link").bits == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_found_in_every_file(
    make_bundle: BundleFactory, name: str, place: int
) -> None:
    folder = make_bundle()
    data = bytearray((folder / name).read_bytes())
    data[place] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256 differs") as caught:
        Bundle.open(folder)
    assert str(folder / name) in str(caught.value)
    assert Bundle.open(folder, check=False).bits == 2


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_missing_and_shortened_files_are_named(
    make_bundle: BundleFactory, name: str, check: bool
) -> None:
    folder = make_bundle()
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"{name}: .* bytes where the manifest says"):
        Bundle.open(folder, check=check)
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        Bundle.open(folder, check=check)
    (folder / name).mkdir()
    with pytest.raises(BundleError, match=f"{name}: not a file"):
        Bundle.open(folder, check=check)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_pipe_is_refused_without_waiting(make_bundle: BundleFactory, name: str) -> None:
    folder = make_bundle()
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError, match="not a file"):
        Bundle.open(folder)


def test_files_beyond_the_bound_are_refused_unread(
    make_bundle: BundleFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 3)
    with pytest.raises(BundleError, match=r"model\.onnx: larger than"):
        Bundle.open(make_bundle())


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "parity/../../outside",
        "/etc/hostname",
        "..",
        ".",
        "",
        "a//b",
        "./model.onnx",
        "parity/",
        "..\\outside",
        "C:outside",
        "a\0b",
        "a\nb",
    ],
)
def test_names_that_leave_the_folder_are_refused(
    make_bundle: BundleFactory, tiny_manifest: ManifestFactory, tmp_path: Path, name: str
) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    manifest = tiny_manifest()
    manifest["files"][name] = manifest["files"]["parity/golden.safetensors"]
    with pytest.raises(BundleError, match="is not allowed in a bundle") as caught:
        Bundle.open(make_bundle(manifest))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_links_out_of_the_bundle_are_refused(
    make_bundle: BundleFactory, tmp_path: Path, name: str
) -> None:
    """Even where the content is right: the folder must stand alone on the device."""
    folder = make_bundle()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.open(folder)


def test_a_linked_folder_inside_is_refused_too(make_bundle: BundleFactory, tmp_path: Path) -> None:
    folder = make_bundle()
    (folder / "parity").rename(tmp_path / "parity")
    (folder / "parity").symlink_to(tmp_path / "parity")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Bundle.open(folder)


def test_links_within_the_bundle_are_fine(make_bundle: BundleFactory) -> None:
    folder = make_bundle()
    (folder / "model.onnx").rename(folder / "v1.onnx")
    (folder / "model.onnx").symlink_to("v1.onnx")
    assert Bundle.open(folder).bits == 2


def test_a_link_to_itself_is_refused(make_bundle: BundleFactory) -> None:
    folder = make_bundle()
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read"):
        Bundle.open(folder)


def test_what_is_no_folder_is_refused(make_bundle: BundleFactory, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle; `qmdd export` makes one"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(BundleError, match="give the bundle's folder"):
        Bundle.open(make_bundle() / "model.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json: missing; it is not a bundle"):
        Bundle.open(tmp_path / "empty")
    (tmp_path / "empty" / "manifest.json").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json: not a file"):
        Bundle.open(tmp_path / "empty")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"\x80\x81",
        b'{"threshold": NaN}',
        b'{"threshold": Infinity}',
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"arch": "\\ud800"}',
    ],
    ids=["empty", "cut", "utf-16", "bom", "binary", "nan", "infinity", "nested", "long", "half"],
)
def test_what_is_not_json_is_refused(make_bundle: BundleFactory, data: bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: (not JSON|must hold an object)"):
        Bundle.open(make_bundle(data))


@pytest.mark.parametrize("data", [b"null", b"[]", b'"text"', b"1"])
def test_other_json_than_an_object_is_refused(make_bundle: BundleFactory, data: bytes) -> None:
    with pytest.raises(BundleError, match="must hold an object"):
        Bundle.open(make_bundle(data))


def test_a_huge_manifest_is_refused(make_bundle: BundleFactory) -> None:
    folder = make_bundle(b" " * MAX_MANIFEST_BYTES + b"{}")
    with pytest.raises(BundleError, match="larger than 4 MiB"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", _DROP, "schema is None"),
        ("schema", 0, "schema is 0"),
        ("schema", True, "schema is True"),
        ("schema", "1", "schema is '1'"),
        ("schema", 2, "newer than this qmdd reads .*upgrade qmdd"),
        ("arch", 5, "arch must be str"),
        ("bits", "2", "bits must be int"),
        ("bits", True, "bits must be int"),
        ("target", _DROP, "target must be str"),
        ("files", [], "files must be dict"),
        ("files", {}, "does not list model.onnx"),
        ("threshold", 1.5, "threshold is 1.5"),
        ("threshold", -1, "threshold is -1"),
        ("threshold", "0.5", "threshold is '0.5'"),
        ("threshold", True, "threshold is True"),
        ("threshold", _DROP, "threshold is None"),
        ("input", [], "input is not"),
        ("input.layout", "NHWC", "input is not .*NCHW"),
        ("input.dtype", "float32", "input is not .*uint8"),
        ("input.color", "BGR", "input is not .*RGB"),
        ("output", _DROP, "output is not"),
        ("output.name", "score", "output is not .*logit"),
        ("input.min_side", _DROP, "whole min_side"),
        ("input.min_side", 32.0, "whole min_side"),
        ("input.min_side", 0, "make no sense"),
        ("input.min_side", 31, "make no sense"),
        ("input.multiple", 0, "make no sense"),
        ("input.multiple", -2, "make no sense"),
        ("input.max_side", 30, "make no sense"),
        ("input.max_side", 10**30, "make no sense"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(
    make_bundle: BundleFactory,
    tiny_manifest: ManifestFactory,
    path: str,
    value: object,
    message: str,
) -> None:
    folder = make_bundle(_changed(tiny_manifest(), path, value))
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert str(caught.value).startswith(f"{folder / 'manifest.json'}: ")


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {},
        {"bytes": 3},
        {"sha256": "0" * 64},
        {"sha256": "0" * 63, "bytes": 3},
        {"sha256": "0" * 64 + "\n", "bytes": 3},
        {"sha256": "G" * 64, "bytes": 3},
        {"sha256": 5, "bytes": 3},
        {"sha256": "0" * 64, "bytes": "3"},
        {"sha256": "0" * 64, "bytes": True},
    ],
)
def test_entries_without_hash_or_size_are_refused(
    make_bundle: BundleFactory, tiny_manifest: ManifestFactory, entry: object
) -> None:
    manifest = tiny_manifest()
    manifest["files"]["model.onnx"] = entry
    with pytest.raises(BundleError, match=r"'model\.onnx' needs its sha256"):
        Bundle.open(make_bundle(manifest))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


def test_any_json_in_place_of_any_part_opens_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, tiny_manifest: ManifestFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    keys = st.sampled_from([*tiny_manifest(), *DEEPER])

    @given(keys, JSON)
    def check(key: str, value: object) -> None:
        text = json.dumps(_changed(tiny_manifest(), key, value))
        (folder / "manifest.json").write_text(text)
        with pytest.raises(BundleError):  # at the latest: its files are missing
            Bundle.open(folder)

    check()


def test_manifest_bytes_are_the_same_for_the_same_content() -> None:
    one = manifest_bytes({"b": [1, 2.5, None], "a": {"y": "é", "x": True}})
    two = manifest_bytes({"a": {"x": True, "y": "é"}, "b": [1, 2.5, None]})
    assert one == two
    assert one.endswith(b"}\n")
    assert json.loads(one) == {"a": {"x": True, "y": "é"}, "b": [1, 2.5, None]}
    assert one.splitlines()[1] == b'  "a": {'


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, Path("x"), b"x"], ids=lambda v: type(v).__name__
)
def test_manifests_that_are_not_json_are_not_written(value: object) -> None:
    with pytest.raises(BundleError, match="cannot be written as JSON"):
        manifest_bytes({"key": value})


def test_a_manifest_that_could_not_be_read_is_not_written() -> None:
    with pytest.raises(BundleError, match="more than"):
        manifest_bytes({"key": "x" * MAX_MANIFEST_BYTES})


def test_more_than_any_bundle_holds_is_refused_before_a_byte_is_read(
    make_bundle: BundleFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand names of one large file would be a thousand times its hash."""
    folder = make_bundle()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = manifest["files"]["model.onnx"]
    monkeypatch.setattr("qmdd.runtime.bundle.sha256_of", None)
    for more, size in ((1000, 0), (5, 2 << 30)):
        files = {f"f{index}": {**entry, "bytes": size} for index in range(more)}
        told = {**manifest, "files": {"model.onnx": entry, **files}}
        (folder / "manifest.json").write_text(json.dumps(told))
        with pytest.raises(BundleError, match=r"manifest\.json: lists .* files of .* MiB"):
            Bundle.open(folder)


def test_a_model_larger_than_any_of_ours_is_not_read(
    make_bundle: BundleFactory, tiny_manifest: Callable[[], dict[str, Any]]
) -> None:
    size = bundle_module.MAX_MODEL_BYTES + 1
    manifest = tiny_manifest()
    manifest["files"]["model.onnx"] |= {"bytes": size}
    folder = make_bundle(manifest)
    with (folder / "model.onnx").open("wb") as stream:
        stream.truncate(size)  # sparse: it takes no room
    with pytest.raises(BundleError, match="more than 256 MiB"):
        Bundle.open(folder, check=False).read("model.onnx")
