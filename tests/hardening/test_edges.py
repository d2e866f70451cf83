"""Exactness at the edges, in short: the long runs' own code where it tells most."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardening.edges import native_fuzz
from hardening.edges.all_floats import wrong_of
from hardening.edges.bit_patterns import BLOCK, block_of, table_codes, telling_blocks, wrong_codes
from hardening.edges.matrix_exports import export_jobs
from hardening.edges.matrix_inputs import write_sets
from hardening.edges.matrix_jobs import Job, jobs
from hardening.edges.parity_matrix import is_wrong, run_job, summary
from hardening.edges.rows import Rows
from hardening.edges.runtimes import CHANNELS, runtimes
from hardening.edges.subjects import SORTS, Subject, subjects
from hardening.edges.whole_set import passed, totals
from qmdd.exporter.samples import sample_images
from qmdd.models.float_order import F32
from qmdd.models.zoo import builtin_checkpoint
from qmdd.runtime import native

LARGEST = np.finfo(np.float32).max


def test_there_is_a_subject_of_every_kind_and_width() -> None:
    trained = {(s.kind, s.slr, s.bits) for s in subjects() if s.sort == "trained"}
    wide = {(kind, slr, bits) for kind in ("minmax", "lsq", "n2uq") for slr in (False, True)
            for bits in (1, 2, 3, 4, 8)}  # fmt: skip
    assert trained == wide | {("binary", False, 1), ("binary", True, 1)}


@pytest.mark.parametrize("sort", [*SORTS, "zoo"])
def test_the_tables_are_the_formulas_where_it_tells_most(sort: str) -> None:
    """Beside every threshold, at zeros, subnormal numbers, infinities and NaN of both signs."""
    for subject in subjects():
        if subject.sort == sort:
            quantizer = subject.quantizer()
            blocks = telling_blocks(quantizer.table())
            assert wrong_of(quantizer, blocks) == (len(blocks) * BLOCK, 0), subject.name


def test_a_threshold_that_is_off_by_one_float_is_seen() -> None:
    quantizer = Subject("n2uq", True, 2, "trained").quantizer()
    table = quantizer.table()

    def codes(x: F32) -> np.ndarray:
        moved = table.copy()
        moved[1] = np.nextafter(moved[1], np.float32(np.inf))
        return table_codes(x, moved)

    assert sum(wrong_codes(codes, table, index) for index in telling_blocks(table)) == 1


@pytest.mark.parametrize("index", [0x0000, 0x3F80, 0x7F7F, 0x7F80, 0x7FFF, 0x8000, 0xC000, 0xFF80])
def test_the_codes_of_a_block_are_the_thresholds_reached(index: int) -> None:
    """Ascending, descending, with infinity and NaN at its end, or nothing but NaN."""
    x = block_of(index)
    middle = x[BLOCK // 2 :: BLOCK // 3]
    middle = np.where(np.isnan(middle), np.float32(1), middle)
    ends = np.array([-np.inf, -1e-45, 0.0, 0.0, 1e-45, LARGEST, np.inf], dtype=np.float32)
    table = np.sort(np.concatenate([ends, middle]))
    np.testing.assert_array_equal(table_codes(x, table), (x[:, None] >= table).sum(axis=1))


def _marks() -> F32:
    """Floats that tell, a whole number of rows of channels."""
    marks = np.array([np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 1.2e-38, LARGEST,
                      -LARGEST, 0.5, 1.0, -1.0], dtype=np.float32)  # fmt: skip
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001], dtype=np.uint32)
    all_of_them = np.concatenate([marks, nans.view(np.float32)])
    return np.resize(all_of_them, CHANNELS * CHANNELS)


TABLES = {
    "infinite ends": [-np.inf, -1.0, -1.2e-38, 1e-45, 0.5, 0.5, np.inf],
    "zero": [-1.0, 0.0, 1.0],
    "lowest and largest": [-LARGEST, 1e-45, LARGEST],
    "8 bits": [*np.linspace(-1, 1, 254), np.inf],
}


@pytest.mark.parametrize("name", TABLES)
def test_every_runtime_gives_the_edges_the_same_codes(name: str) -> None:
    """NaN has code 0 in all but OpenVINO, where it has the largest; none comes to a quantizer."""
    table = np.array(TABLES[name], dtype=np.float32)
    x = _marks()
    none = np.isnan(x)
    want = (x[:, None] >= table).sum(axis=1)
    found = runtimes(table)
    assert "ONNX Runtime" in found
    for runtime, codes_of in found.items():
        codes = np.asarray(codes_of(x)).astype(np.int64)
        np.testing.assert_array_equal(codes[~none], want[~none], err_msg=runtime)
        assert set(codes[none]) == {table.size if runtime == "OpenVINO" else 0}, runtime


@pytest.mark.skipif(native_fuzz.compiler() is None, reason="apt-get install clang libclang-rt-dev")
def test_the_native_operators_under_the_fuzzer(tmp_path: Path) -> None:
    """All that once broke them, all that reaches far, and some more."""
    binary = native_fuzz.build(tmp_path)
    corpus = tmp_path / "corpus"
    kept = native_fuzz.kept_inputs(native_fuzz.SEEDS) + native_fuzz.kept_inputs(native_fuzz.FOUND)
    native_fuzz.lay_out(kept, corpus)
    run = native_fuzz.run(binary, corpus, len(kept) + 1500)
    assert run.found == ""
    assert run.executions >= 1500
    assert run.edges > 3000  # else it reaches no kernel


def test_kept_inputs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    path.write_text("# all of them\n\nc0ff  # no thresholds\n00\n")
    assert native_fuzz.kept_inputs(path) == [b"\xc0\xff", b"\x00"]
    assert native_fuzz.kept_inputs(tmp_path / "none") == []


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of bundles and inputs."""
    folder = tmp_path_factory.mktemp("edges")
    yield folder
    shutil.rmtree(folder)


def _checkpoint() -> Path:
    path = builtin_checkpoint("resnet23", 2)
    assert path is not None
    return path


def test_cells_of_the_matrix(work: Path) -> None:
    """Two levels, two batches, two sizes, one of them odd; a size that a model does not take."""
    sets = write_sets(_checkpoint(), sample_images(), work / "inputs", [(32, 32), (33, 67)], 5)
    job = Job("onnx", "onnxruntime", ("none", "all"), (1,), (1, 3), claims=33)
    row = run_job(job, _checkpoint(), sets, work)
    ran = [cell for cell in row["cells"] if "codes" in cell]
    assert len(ran) == 4
    assert {cell["size"] for cell in ran} == {"33x67"}
    assert all(cell["images"] == 3 and cell["codes"] > 0 and cell["wrong"] == 0 for cell in ran)
    (refused,) = (cell for cell in row["cells"] if "refused" in cell)
    assert refused["size"] == "32x32"
    assert "sides of 33 or more" in refused["refused"]
    found = summary([row])
    assert (found["cells"], found["wrong"], found["failed"]) == (4, 0, [])


def test_a_code_that_differs_is_a_wrong_cell(work: Path) -> None:
    sets = write_sets(_checkpoint(), sample_images(), work / "inputs", [(32, 32)], 5)
    with np.load(sets["32x32"]) as held:
        arrays: dict[str, Any] = {name: held[name] for name in held.files}
    layer = next(name for name in arrays if name.startswith("codes:"))
    arrays[layer] = arrays[layer].copy()
    arrays[layer].flat[7] ^= 1
    changed = work / "changed.npz"
    np.savez(changed, **arrays)
    job = Job("onnx", "onnxruntime", ("all",), (1,), (7,))
    row = run_job(job, _checkpoint(), {"32x32": changed}, work)
    (cell,) = row["cells"]
    assert cell["wrong"] == 1
    assert is_wrong(cell)
    assert [c["job"] for c in summary([row])["failed"]] == [job.name]


def test_the_matrix_has_every_runtime_and_version() -> None:
    names = [job.name for job in (*jobs(), *export_jobs())]
    assert len(set(names)) == len(names)
    for part in ("onnx in onnxruntime", "openvino in openvino", "qonnx in qonnx",
                 "onnx in onnxruntime, onnxruntime 1.23.0", "export onnx, onnx 1.20.0",
                 "pillow 10.3.0"):  # fmt: skip
        assert any(part in name for name in names), part
    if native.library_path():
        assert f"cpu in native ({native.kernels()[0]})" in names


def test_whole_sets_are_added_up() -> None:
    tier = {"images": 2, "codes_compared": 10, "wrong_codes": 0, "flipped_verdicts": 0,
            "max_abs_logit_diff": 1e-6, "runtime": "onnxruntime", "logit_bar": 1e-5}  # fmt: skip
    rows = [{"tiers": {"onnx strict": tier}}, {"tiers": {"onnx strict": tier}}]
    found = totals(rows)
    assert found["onnx strict"]["codes_compared"] == 20
    assert passed(found)
    for change in ({"wrong_codes": 1}, {"flipped_verdicts": 1}, {"max_abs_logit_diff": 1e-4}):
        assert not passed(totals([*rows, {"tiers": {"onnx strict": {**tier, **change}}}]))
    assert not passed({})


def test_rows_outlive_their_run(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    Rows(path).add({"name": "a", "wrong": 0})
    assert Rows(path).find(name="a") == {"name": "a", "wrong": 0}
    assert Rows(path).find(name="b") is None
