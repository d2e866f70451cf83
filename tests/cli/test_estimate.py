"""qmdd estimate, through the command line, on bundles that were really exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmdd.cli.estimate import PRECISIONS
from qmdd.exporter import devices

SMALL = ("--side", 64)


@pytest.fixture(scope="module")
def bundles(
    tmp_path_factory: pytest.TempPathFactory, tiny_detector, trace_once, image_folder: Path
) -> Iterator[dict[str, Path]]:
    """A 2-bit bundle of the interchange form, one for a Jetson, one in full precision."""
    from qmdd.exporter.export import export_bundle
    from qmdd.exporter.source import Source

    folder = tmp_path_factory.mktemp("estimate")
    image = image_folder / "alpha" / "0_real" / "0.png"
    detector = tiny_detector()
    for name, network, bits, target in (
        ("onnx", detector, 2, "onnx"),
        ("jetson", detector, 2, "orin-nano"),
        ("float", tiny_detector(bits=32), 32, "onnx"),
    ):
        source = Source(network, "resnet23", bits, {"sha256": "0" * 64})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("qmdd.exporter.trace.canonical_from_detector", trace_once)
            export_bundle(source, folder / name, target=target, images=[image], verify=False)
    return {name: folder / name for name in ("onnx", "jetson", "float")}


def loaded(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_precisions_are_the_exporter_s() -> None:
    assert PRECISIONS == devices.PRECISIONS


def test_the_json_is_labelled_and_adds_up(invoke, bundles: dict[str, Path]) -> None:
    found = loaded(invoke("estimate", bundles["onnx"], "--target", "orin-nano", "--json", *SMALL))
    assert found["label"] == "estimated"
    assert (found["target"], found["side"]) == ("orin-nano@6.2", 64)
    assert found["device"]["mode"] == "MAXN_SUPER"
    assert found["assumptions"]
    for fact in found["device"]["facts"].values():
        assert fact["source"]
    assert [e["precision"] for e in found["estimates"]] == ["int8", "fp16", "fp32"]
    for part in found["estimates"]:
        assert part["ms"] == pytest.approx(sum(layer["ms"] for layer in part["layers"]))
        assert part["ms"] == pytest.approx(sum(part["ms_by_kind"].values()))
        assert {layer["limit"] for layer in part["layers"]} == set(part["ms_by_limit"])
        assert part["images_per_second"] == pytest.approx(1000 / part["ms"])
    int8, fp16, fp32 = found["estimates"]
    assert int8["weight_bytes"] < fp16["weight_bytes"] < fp32["weight_bytes"]
    assert fp16["ms"] < fp32["ms"]
    # Packed at two bits in the file, a byte each when they are computed with.
    assert int8["stored_bytes"] < int8["weight_bytes"] / 2


def test_the_same_network_lowered_for_the_device(invoke, bundles: dict[str, Path]) -> None:
    """Its stem is in int8 too: less at the float rate, the same convolutions otherwise."""
    parts = {}
    for name in ("onnx", "jetson"):
        args = ("--target", "orin-nano", "--precision", "int8", "--json", *SMALL)
        (parts[name],) = loaded(invoke("estimate", bundles[name], *args))["estimates"]
    kernels = {
        name: [layer["width"] for layer in part["layers"] if layer["width"]]
        for name, part in parts.items()
    }
    assert kernels["onnx"].count("fp32") == 2  # stem and head
    assert kernels["jetson"].count("fp32") == 1  # head
    assert parts["jetson"]["ms_by_kind"]["stem"] < parts["onnx"]["ms_by_kind"]["stem"]


def test_side_batch_and_mode_count(invoke, bundles: dict[str, Path]) -> None:
    def ms(*args: object) -> float:
        more = ("--target", "orin-nano", "--precision", "int8", "--json")
        return float(
            loaded(invoke("estimate", bundles["onnx"], *more, *args))["estimates"][0]["ms"]
        )

    base = ms(*SMALL)
    assert ms("--side", 128) > base
    assert base < ms("--batch", 4, *SMALL)
    assert ms("--mode", "15w", *SMALL) > 1.4 * base
    older = loaded(
        invoke("estimate", bundles["onnx"], "--target", "orin-nano@5.1", "--json", *SMALL)
    )
    assert older["device"]["mode"] == "15W"


def test_the_table_says_what_it_is(invoke, bundles: dict[str, Path]) -> None:
    result = invoke("estimate", bundles["onnx"], "--target", "thor", *SMALL)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("estimated, not measured: resnet23, 2 bits, lowered for onnx, on ")
    assert "T5000" in lines[0]
    text = " ".join(result.stdout.split())
    assert "stages.0.0.conv1.conv conv int8" in text
    for word in ("stem", "epilogue", "pooling", "head", "memory bandwidth", "https://"):
        assert word in text, word
    assert "int8 ms, estimated" in text
    short = invoke("estimate", bundles["onnx"], "--target", "thor", "--no-layers", *SMALL).stdout
    assert "stages.0.0.conv1.conv conv" not in " ".join(short.split())
    assert "Rests on:" in short


def test_full_precision_has_no_int8(invoke, bundles: dict[str, Path]) -> None:
    args = ("estimate", bundles["float"], "--target", "orin-nx", *SMALL)
    found = loaded(invoke(*args, "--json"))
    assert [e["precision"] for e in found["estimates"]] == ["fp16", "fp32"]
    assert "full precision" in found["network"]
    assert found["left_out"][0].startswith("int8: nothing in this network is computed in int8")
    asked = invoke(*args, "--precision", "int8")
    assert asked.exit_code == 1
    assert "nothing in this network is computed in int8" in asked.stderr


def test_a_refused_target_with_data_is_estimated_and_named(
    invoke, bundles: dict[str, Path]
) -> None:
    args = ("estimate", bundles["onnx"], "--target", "jetson-nano", *SMALL)
    found = loaded(invoke(*args, "--json"))
    assert [e["precision"] for e in found["estimates"]] == ["fp16", "fp32"]
    assert any("not a target to export for" in note for note in found["notes"])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_plot_is_written_and_the_same_each_time(
    invoke, bundles: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in files:
        args = ("--target", "rtx-ada", "--plot", path, "--json", *SMALL)
        loaded(invoke("estimate", bundles["onnx"], *args))
    first, second = (path.read_bytes() for path in files)
    assert first.startswith(start)
    assert first == second


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--target", "orin-nanno"), "did you mean orin-nano"),
        (("--target", "orin-nano@4.6"), "orin-nano runs JetPack 6.2"),
        ((), "target onnx stands for no single device"),
        (("--target", "onnx"), "target onnx stands for no single device"),
        (("--target", "rtx"), "target rtx stands for no single device"),
        (("--target", "jetson-nano", "--precision", "int8"), "it has fp16, fp32"),
        (("--target", "orin-nano", "--mode", "turbo"), "there are: 15W, MAXN_SUPER"),
        (("--target", "orin-nano", "--side", "65"), "32 to 512 pixels a side in steps of 2"),
        (("--target", "orin-nano", "--side", "1024"), "32 to 512 pixels a side"),
        (("--target", "orin-nano", "--plot", "x.gif"), "a plot is a .png, .svg, .pdf file"),
        (("--target", "orin-nano", "--plot", "none/x.png"), "none: no such folder"),
    ],
)
def test_failures_are_one_line(
    invoke, bundles: dict[str, Path], args: tuple[str, ...], message: str
) -> None:
    result = invoke("estimate", bundles["onnx"], *args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--target", "thor", "--precision", "int2"), "'int2' is not one of"),
        (("--target", "thor", "--batch", "0"), "1<=x<=4096"),
        (("--target", "thor", "--side", "0"), "x>=1"),
    ],
)
def test_wrong_usage(invoke, bundles: dict[str, Path], args: tuple[str, ...], message: str) -> None:
    result = invoke("estimate", bundles["onnx"], *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_damaged_bundle_is_named(invoke, bundles: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundles["onnx"], tmp_path / "bundle"))
    (copy / "model.onnx").write_bytes(b"something else")
    result = invoke("estimate", copy, "--target", "thor")
    assert result.exit_code == 1
    assert "model.onnx" in result.stderr
    missing = invoke("estimate", tmp_path / "none", "--target", "thor")
    assert missing.exit_code == 1
    assert "no such bundle" in missing.stderr


def test_a_bundle_whose_model_is_none_is_named(
    invoke, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """The hash agrees, the content is no ONNX model."""
    import hashlib

    copy = Path(shutil.copytree(bundles["onnx"], tmp_path / "bundle"))
    data = b"\xff no model"
    (copy / "model.onnx").write_bytes(data)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (copy / "manifest.json").write_text(json.dumps(manifest))
    result = invoke("estimate", copy, "--target", "thor")
    assert result.exit_code == 1
    assert "no ONNX model, or a cut one" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_it_needs_onnx_and_no_torch(process, bundles: dict[str, Path]) -> None:
    args = ("estimate", bundles["onnx"], "--target", "thor", "--json", *SMALL)
    blocked = "import sys\nfor name in {!r}: sys.modules[name] = None"
    heavy = ("torch", "onnxscript", "onnx_graphsurgeon", "onnxruntime", "matplotlib")
    done = process(*args, code=blocked.format(heavy))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "estimated"
    without = process(*args, code=blocked.format(("onnx",)))
    assert without.returncode == 1
    assert without.stderr == "qmdd: error: onnx is not installed; run: pip install 'qmdd[export]'\n"
