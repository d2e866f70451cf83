"""Golden results: what is written is what is read, and nothing else is read."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from qmdd.runtime import golden as golden_module
from qmdd.runtime.errors import BundleError
from qmdd.runtime.golden import Golden, read_golden, write_golden

U8 = npt.NDArray[np.uint8]
LAYERS = ["stage1.0.conv1", "stage1.0.conv2", "a"]


def _golden(count: int = 2, top: int = 3, seed: int = 0) -> Golden:
    """Images of different sizes, codes of odd counts."""
    rng = np.random.default_rng(seed)

    def draw(high: int, *shape: int) -> U8:
        return rng.integers(0, high + 1, shape, dtype=np.uint8)

    images = [draw(255, 3, 32 + 2 * i, 34) for i in range(count)]
    logits = rng.normal(size=count).astype(np.float32)
    codes = [
        {name: draw(top, 3, 5 + i, j + 1) for j, name in enumerate(LAYERS)} for i in range(count)
    ]
    for of_image in codes:
        of_image["a"].flat[0] = top
    return Golden(images, logits, codes)


def _assert_same(one: Golden, two: Golden) -> None:
    assert one.layers == two.layers
    np.testing.assert_array_equal(one.logits, two.logits)
    assert one.logits.dtype == two.logits.dtype == np.float32
    assert len(one.images) == len(two.images)
    for a, b in zip(one.images, two.images, strict=True):
        np.testing.assert_array_equal(a, b)
    for left, right in zip(one.codes, two.codes, strict=True):
        assert list(left) == list(right)
        for name in left:
            assert right[name].dtype == np.uint8
            np.testing.assert_array_equal(left[name], right[name])


@pytest.mark.parametrize(
    ("top", "bits"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (15, 4), (16, 8), (255, 8)]
)
def test_codes_come_back_at_every_width(tmp_path: Path, top: int, bits: int) -> None:
    golden = _golden(top=top)
    path = tmp_path / "golden.safetensors"
    write_golden(path, golden)
    _assert_same(golden, read_golden(path))
    raw = load_file(path)
    assert raw["codes.0.a"].size == -(-golden.codes[0]["a"].size * bits // 8)
    np.testing.assert_array_equal(raw["image.1"], golden.images[1])
    assert raw["logit.0"].tolist() == [float(golden.logits[0])]


@given(
    st.integers(1, 3),
    st.integers(0, 255),
    st.lists(st.text(min_size=1, max_size=6), max_size=4, unique=True),
    st.lists(st.integers(0, 5), max_size=3),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_any_results_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    top: int,
    names: list[str],
    shape: list[int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    golden = Golden(
        [rng.integers(0, 256, (3, 2, 4), dtype=np.uint8) for _ in range(count)],
        rng.normal(size=count).astype(np.float32),
        [
            {name: rng.integers(0, top + 1, shape, dtype=np.uint8) for name in names}
            for _ in range(count)
        ],
    )
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    write_golden(path, golden)
    _assert_same(golden, read_golden(path))


def test_the_first_code_is_in_the_lowest_bits(tmp_path: Path) -> None:
    image = np.zeros((3, 2, 2), dtype=np.uint8)
    codes = np.array([1, 2, 3, 0, 3], dtype=np.uint8)
    path = tmp_path / "golden"
    write_golden(path, Golden([image], np.zeros(1, np.float32), [{"x": codes}]))
    assert load_file(path)["codes.0.x"].tolist() == [0b00_11_10_01, 0b11]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    """The library writes its metadata in an order of its own each time."""
    paths = [tmp_path / f"{i}" for i in range(8)]
    for path in paths:
        write_golden(path, _golden())
    assert len({path.read_bytes() for path in paths}) == 1


def test_views_are_written_by_value(tmp_path: Path) -> None:
    golden = _golden(1)
    turned = Golden(
        [golden.images[0][:, ::-1, ::2]],
        golden.logits,
        [{name: array.T for name, array in golden.codes[0].items()}],
    )
    write_golden(tmp_path / "golden", turned)
    _assert_same(turned, read_golden(tmp_path / "golden"))


def _wrong() -> dict[str, Golden]:
    good = _golden()
    return {
        "none": Golden([], np.zeros(0, np.float32), []),
        "fewer images": Golden(good.images[:1], good.logits, good.codes),
        "fewer logits": Golden(good.images, good.logits[:1], good.codes),
        "fewer codes": Golden(good.images, good.logits, good.codes[:1]),
        "logits of rank 2": Golden(good.images, good.logits[:, None], good.codes),
        "float64 logits": Golden(good.images, good.logits.astype(np.float64), good.codes),
        "nan": Golden(good.images, good.logits * np.float32(np.nan), good.codes),
        "float image": Golden([i.astype(np.float32) for i in good.images], good.logits, good.codes),
        "image of rank 2": Golden([i[0] for i in good.images], good.logits, good.codes),
        "image of one channel": Golden([i[:1] for i in good.images], good.logits, good.codes),
        "other layers": Golden(good.images, good.logits, [good.codes[0], {}]),
        "other order": Golden(
            good.images, good.logits, [good.codes[0], dict(reversed(good.codes[1].items()))]
        ),
        "float codes": Golden(
            good.images,
            good.logits,
            [{k: v.astype(np.float32) for k, v in c.items()} for c in good.codes],
        ),
    }


@pytest.mark.parametrize("name", sorted(_wrong()))
def test_results_that_do_not_fit_together_are_not_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "golden"
    with pytest.raises(BundleError, match=str(path)):
        write_golden(path, _wrong()[name])
    assert not path.exists()


def test_files_beyond_the_bound_are_neither_written_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "golden"
    write_golden(path, _golden())
    monkeypatch.setattr(golden_module, "MAX_BYTES", 1000)
    with pytest.raises(BundleError, match="use fewer or smaller images"):
        write_golden(tmp_path / "other", _golden())
    with pytest.raises(BundleError, match="larger than"):
        read_golden(path)


def _parts(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return dict(load_file(path)), header["__metadata__"]


@pytest.mark.parametrize(
    ("changes", "metadata"),
    [
        ({"image.0": None}, {}),
        ({"image.1": None}, {}),
        ({"logit.1": None}, {}),
        ({"codes.1.a": None}, {}),
        ({"image.2": np.zeros((3, 2, 2), np.uint8)}, {}),
        ({"stranger": np.zeros(1, np.uint8)}, {}),
        ({"image.0": np.zeros((3, 2), np.uint8)}, {}),
        ({"image.0": np.zeros((3, 2, 2), np.float32)}, {}),
        ({"logit.0": np.zeros(2, np.float32)}, {}),
        ({"logit.0": np.zeros(1, np.float64)}, {}),
        ({"logit.0": np.full(1, np.inf, np.float32)}, {}),
        ({"codes.0.a": np.zeros(3, np.uint8)}, {}),
        ({"codes.0.a": np.zeros((1, 12), np.uint8)}, {}),
        ({"codes.0.a": np.zeros(12, np.int8)}, {}),
        ({}, {"bits": None}),
        ({}, {"bits": "3"}),
        ({}, {"bits": "0"}),
        ({}, {"bits": "x"}),
        ({}, {"bits": "8"}),
        ({}, {"layers": None}),
        ({}, {"layers": "[]"}),
        ({}, {"layers": "5"}),
        ({}, {"layers": "[1, 2, 3]"}),
        ({}, {"layers": '["a", "a", "a"]'}),
        ({}, {"layers": "[" * 100000}),
        ({}, {"shapes": None}),
        ({}, {"shapes": "[]"}),
        ({}, {"shapes": "{"}),
        ({}, {"shapes": "[[[1], [1], [1]], [[1], [1], [1]]]"}),
        ({}, {"shapes": "[[[-3, -5, 3], [1], [1]], [[1], [1], [1]]]"}),
        ({}, {"shapes": "[[[true], [1], [1]], [[1], [1], [1]]]"}),
        ({}, {"shapes": "[[null, [1], [1]], [[1], [1], [1]]]"}),
        ({}, {"shapes": "[[[1e300], [1], [1]], [[1], [1], [1]]]"}),
        ({}, {"shapes": "[[[1000000000000, 1000000000000], [1], [1]], [[1], [1], [1]]]"}),
    ],
)
def test_files_that_do_not_fit_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], metadata: dict[str, str | None]
) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    write_golden(good, _golden())
    tensors, notes = _parts(good)
    merged = {**tensors, **changes}
    all_notes = {**notes, **metadata}
    save_file(
        {name: array for name, array in merged.items() if array is not None},
        bad,
        {key: value for key, value in all_notes.items() if value is not None},
    )
    with pytest.raises(BundleError, match=str(bad)):
        read_golden(bad)


@pytest.mark.parametrize("data", [b"", b"words", bytes(8), b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "golden"
    path.write_bytes(data)
    with pytest.raises(BundleError, match="not a golden file"):
        read_golden(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        read_golden(tmp_path / "absent")
    with pytest.raises(BundleError):
        read_golden(tmp_path)


def test_random_changes_give_results_or_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "golden"
    write_golden(path, _golden(1))
    original = path.read_bytes()
    places = st.integers(0, 900) | st.integers(0, len(original) - 1)

    @settings(max_examples=200)
    @given(
        st.lists(st.tuples(places, st.integers(0, 255)), max_size=6), st.integers(0, len(original))
    )
    def check(changed: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(original)
        for place, value in changed:
            data[place] = value
        path.write_bytes(data if cut % 3 else data[:cut])
        with contextlib.suppress(BundleError):
            assert isinstance(read_golden(path), Golden)

    check()


def test_a_missing_safetensors_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "golden"
    write_golden(path, _golden())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: read_golden(path), lambda: write_golden(path, _golden())):
        with pytest.raises(BundleError, match=r"pip install 'qmdd\[runtime\]'"):
            call()


def test_a_header_that_is_too_long_is_not_parsed(tmp_path: Path) -> None:
    """Parsed, it would take 13 times as much."""
    path = tmp_path / "golden.safetensors"
    path.write_bytes((golden_module.MAX_HEADER + 1).to_bytes(8, "little") + b"{" + bytes(100))
    with pytest.raises(BundleError, match="header is too long"):
        read_golden(path)
