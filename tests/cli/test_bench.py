"""``qmdd bench`` through real runs of a tiny bundle; no test looks at how long anything took."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

from qmdd.runtime.native import library_path

#: What runs a bundle for CPUs here: the native operators need a compiler to be built.
USUAL = "native" if library_path() else "onnxruntime"
FAST = ("--size", 64, "--threads", 1, "--seconds", 0.2)


@pytest.fixture(scope="module", autouse=True)
def _shallow() -> Iterator[None]:
    """One block to a stage, so that an export takes a second."""
    from qmdd.models import resnet

    layouts = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "LAYOUTS", layouts)
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, settle: Any) -> Path:
    """A 2-bit ResNet of 1/8 of the width, for CPUs; its checkpoint lies beside it."""
    import torch

    from qmdd.calibration.train import save_detector
    from qmdd.exporter.export import export_bundle
    from qmdd.models import build_detector

    folder = tmp_path_factory.mktemp("bench")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        detector = settle(build_detector("resnet23", 2, width=1 / 8))
    save_detector(detector, folder / "latent.safetensors", {})
    export_bundle(folder / "latent.safetensors", folder / "bundle", target="cpu", verify=False)
    return folder / "bundle"


@pytest.fixture(scope="module")
def twin(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``--write-twin`` writes."""
    from click.testing import CliRunner

    from qmdd.cli.main import cli

    path = tmp_path_factory.mktemp("twin") / "twin.onnx"
    done = CliRunner().invoke(cli, ["bench", str(bundle), "--write-twin", str(path)])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == ""
    return path


def loaded(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def refused(result: Any, *words: str) -> None:
    """One line, exit code 1."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("qmdd: error: ")
    for word in words:
        assert word in line


def test_json_and_plot_with_a_twin_made_here(invoke, bundle: Path, tmp_path: Path) -> None:
    plot = tmp_path / "bench.svg"
    plot.write_text("an older one, which is replaced", encoding="utf-8")
    found = loaded(invoke("bench", bundle, *FAST, "--batch", "1,3", "--json", "--plot", plot))
    assert (found["schema"], found["label"], found["no_twin"]) == (1, "measured", "")
    assert (found["arch"], found["bits"], found["target"]) == ("resnet23", 2, "cpu")
    assert found["model_bytes"] == (bundle / "model.onnx").stat().st_size
    expected = {"origin": "golden", "images": 2, "height": 64, "width": 64, "left_out": 0}
    assert found["inputs"] == expected
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["processor"]
    assert set(found["runtimes"]) == {USUAL, "twin"} == set(found["load_seconds"])
    about = found["runtimes"][USUAL]
    assert "native operators" in about["why"]
    assert about["version"].count(".") == 2
    assert bool(about["kernel"]) == (USUAL == "native")
    assert found["runtimes"]["twin"]["model_bytes"] > found["model_bytes"]
    assert [(c["threads"], c["batch"]) for c in found["configurations"]] == [(1, 1), (1, 3)]
    for configuration in found["configurations"]:
        ours, twin = configuration["rows"]
        assert (ours["name"], twin["name"]) == (USUAL, "twin")
        assert twin["ratio"] is twin["cpu_ratio"] is None
        assert ours["ratio"]["low"] <= ours["ratio"]["median"] <= ours["ratio"]["high"]
        for row in (ours, twin):
            times = row["times"]
            assert times["turns"] >= 3
            assert times["runs"] >= times["turns"]
            assert 0 < times["least_ms"] <= times["median_ms"] <= times["p90_ms"] <= times["p99_ms"]
            assert times["images_per_second"] == pytest.approx(
                1e3 * configuration["batch"] / times["median_ms"]
            )
            assert row["load_seconds"] > 0
            assert 0 < row["base_memory"] < row["loaded_memory"] <= row["peak_memory"]
    stages = found["stages"]
    assert stages["decoded"] == "JPEG of quality 95"
    assert all(stages[f"{name}_seconds"] > 0 for name in ("decode", "crop", "verdict"))
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
    assert "full-precision twin" in plot.read_text(encoding="utf-8")


def test_the_table_says_what_was_measured_and_how(invoke, bundle: Path, twin: Path) -> None:
    done = invoke("bench", bundle, *FAST, "--batch", "2", "--twin", twin)
    assert done.exit_code == 0, done.stderr
    for word in ("measured", "64x64 pixels", "p99", "runs", "images/s", "MiB", "decode", "verdict"):
        assert word in done.stdout
    assert f"\n{USUAL} 1." in done.stdout
    assert "loads in" in done.stdout


def test_a_twin_written_elsewhere_needs_no_torch(process, bundle: Path, twin: Path) -> None:
    """And nothing of the exporter: this is how a device is measured."""
    missing = "import sys\nsys.modules['torch'] = sys.modules['onnx'] = None"
    args = ("bench", bundle, *FAST, "--batch", 1, "--json")
    args = tuple(256 if arg == 64 else arg for arg in args)  # the golden images as they are
    found = json.loads(process(*args, "--twin", twin, code=missing).stdout)
    assert 0 <= found["runtimes"][USUAL]["logit_difference"] < 1e-5
    assert found["runtimes"]["twin"]["logit_difference"] is None
    assert found["configurations"][0]["rows"][0]["ratio"]["median"] > 0
    without = json.loads(process(*args, code=missing).stdout)
    assert set(without["runtimes"]) == {USUAL}
    assert without["configurations"][0]["rows"][0]["ratio"] is None
    assert "torch is not installed" in without["no_twin"]
    assert "--write-twin" in without["no_twin"]


def test_a_foreign_file_is_no_twin(invoke, bundle: Path, twin: Path, tmp_path: Path) -> None:
    args = ("bench", bundle, *FAST, "--batch", 1, "--twin")
    refused(invoke(*args, bundle / "model.onnx"), "model.onnx: not a twin that qmdd wrote")
    model = onnx.load(twin)
    model.metadata_props[0].value = model.metadata_props[0].value.replace("resnet23", "resnet50")
    onnx.save(model, tmp_path / "other.onnx")
    refused(invoke(*args, tmp_path / "other.onnx"), 'the twin of {"arch": "resnet50"', "write-twin")
    (tmp_path / "text.onnx").write_text("no model")
    refused(invoke(*args, tmp_path / "text.onnx"), "text.onnx: cannot be loaded")
    refused(invoke(*args, tmp_path / "none.onnx"), "none.onnx: no such model file")


def test_images_of_another_size_are_left_out(invoke, bundle: Path, tmp_path: Path) -> None:
    for name, size in (("a", (64, 48)), ("b", (64, 48)), ("c", (80, 80))):
        Image.new("RGB", size, (200, 10, 10)).save(tmp_path / f"{name}.png")
    args = ("bench", bundle, "--threads", 1, "--batch", 1, "--seconds", 0.2, "--no-twin")
    found = loaded(invoke(*args, "--images", tmp_path, "--json"))
    assert found["inputs"] == {
        "origin": "files",
        "images": 2,
        "height": 48,
        "width": 64,
        "left_out": 1,
    }
    assert found["stages"]["decoded"] == "the files given"
    assert found["no_twin"] == "left out with --no-twin"
    refused(invoke(*args, "--images", tmp_path, "--size", 128), "a.png: smaller than --size 128")


def test_two_runtimes_side_by_side(invoke, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")
    from qmdd.exporter.export import export_bundle

    export_bundle(bundle.parent / "latent.safetensors", tmp_path / "onnx", verify=False)
    both = ("--runtime", "openvino", "--runtime", "onnxruntime")
    args = ("bench", tmp_path / "onnx", *FAST, "--batch", 1, "--no-twin")
    found = loaded(invoke(*args, *both, "--json"))
    assert [row["name"] for row in found["configurations"][0]["rows"]] == [both[1], both[3]]
    assert {about["why"] for about in found["runtimes"].values()} == {"asked for"}
    assert found["runtimes"]["openvino"]["kernel"]
    refused(invoke(*args, "--runtime", "native"), "has no model for the native operators")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--size", 31], "--size: 31 pixels a side;"),
        (["--size", 5000], "takes 32 to 512, in steps of 2"),
        (["--size", 0], "0 is not in the range"),
        (["--batch", "1,x"], "'1,x' is not a list such as 1,8"),
        (["--batch", "0"], "each must be within 1..1024"),
        (["--threads", "4000"], "each must be within 1..1024"),
        (["--runtime", "tvm"], "'tvm' is not one of"),
        (["--seconds", 0], "0.0 is not in the range"),
        (["--no-twin", "--twin", "f"], "exclude each other"),
    ],
)
def test_wrong_usage(invoke, bundle: Path, args: list[object], said: str) -> None:
    done = invoke("bench", bundle, *args)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_what_cannot_be_used(invoke, bundle: Path, twin: Path, tmp_path: Path) -> None:
    refused(invoke("bench", tmp_path / "none"), "none: no such bundle")
    refused(invoke("bench", bundle, "--plot", tmp_path / "no" / "f.svg"), "no: no such folder")
    refused(invoke("bench", bundle, "--plot", tmp_path / "f.txt"), "a plot is a .png, .svg, .pdf")
    (tmp_path / "folder.svg").mkdir()
    refused(invoke("bench", bundle, "--plot", tmp_path / "folder.svg"), "a folder; name a file")
    refused(invoke("bench", bundle, "--write-twin", twin), "exists; choose another --write-twin")
    (tmp_path / "bad.png").write_text("no image")
    refused(invoke("bench", bundle, "--images", tmp_path / "bad.png"), "bad.png: not an image")


def test_a_damaged_bundle(invoke, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with (copy / "model.onnx").open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\xff")
    refused(invoke("bench", copy), "model.onnx: its SHA-256 differs")


def test_without_onnxruntime(invoke, bundle: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = invoke("bench", bundle, *FAST, "--no-twin")
    refused(done, "onnxruntime is not installed; run: pip install 'qmdd[runtime]'")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
def test_ctrl_c_leaves_no_process_behind(bundle: Path) -> None:
    command = [sys.executable, "-m", "qmdd.cli.main", "bench", bundle, "--no-twin", "--size", "64"]
    running = subprocess.Popen([str(c) for c in command], stderr=subprocess.PIPE, text=True)
    ends, children = time.monotonic() + 30, []
    while not children and time.monotonic() < ends:
        time.sleep(0.05)
        children = _children(running.pid)
    time.sleep(0.3)  # in the middle of loading or timing
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert said.strip() == "qmdd: interrupted; nothing was written"
    assert children
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
