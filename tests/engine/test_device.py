"""Commands on a device with TensorRT, from build to bench, on stand-ins for TensorRT and CUDA.

What they show: processes, files, shapes, tiers and refusals are right. Not that TensorRT agrees.
"""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from qmdd.exporter import trace
from qmdd.exporter.engine.audit import audit
from qmdd.exporter.engine.build import build_engine, plan_of
from qmdd.exporter.engine.golden import build_probed
from qmdd.exporter.engine.layers import EngineLayer
from qmdd.exporter.export import export_bundle
from qmdd.exporter.source import source_from_network
from qmdd.exporter.trace import canonical_from_detector
from qmdd.models import resnet
from qmdd.models.checkpoint import freeze
from qmdd.runtime.bundle import MODEL, Bundle, manifest_bytes
from qmdd.runtime.engine import ENGINE, read_record
from qmdd.runtime.sessions import ONNXRUNTIME, TENSORRT, runs_concurrently, runtime_of, sides_for

Invoke = Callable[..., Result]
#: A device has neither.
START = (
    "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
    "from qmdd.cli.main import main\nmain()"
)


@pytest.fixture(scope="module")
def export(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_detector: Callable[..., Any],
    image_folder: Path,
) -> Callable[[str], Path]:
    """A narrow ResNet-23 of one block to a stage for a target; two golden images of 64x64."""
    images = sorted(image_folder.rglob("*.png"))[::3]
    shallow = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "LAYOUTS", shallow)
        source = source_from_network(tiny_detector(), "tiny")
    traced = canonical_from_detector(freeze(copy.deepcopy(source.network))).SerializeToString()

    def make(target: str) -> Path:
        folder = tmp_path_factory.mktemp("device") / "bundle"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trace, "canonical_from_detector", lambda _: onnx.load_from_string(traced))
            return export_bundle(source, folder, target=target, images=images, verify=False).bundle

    return make


@pytest.fixture(scope="module")
def exported(export: Callable[[str], Path]) -> Path:
    """For a Jetson."""
    return export("orin-nano")


def qmdd(environment: dict[str, str], *args: object) -> Any:
    """What a command prints as JSON, as a process of its own."""
    command = [sys.executable, "-c", START, *map(str, args), "--json"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def built(exported: Path, tensorrt_device: dict[str, str]) -> Path:
    """The same with its engine."""
    folder = exported.with_name("built")
    shutil.copytree(exported, folder)
    assert qmdd(tensorrt_device, "build", folder, "--side", 64)["audit"]["passed"]
    return folder


@pytest.fixture
def here(tensorrt_device: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """This process becomes the device; ``here("verify", ...)`` runs a command in it."""
    standin, library = (
        tensorrt_device[name].partition(":")[0] for name in ("PYTHONPATH", "LD_LIBRARY_PATH")
    )
    for name, value in tensorrt_device.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(standin)
    monkeypatch.setattr("qmdd.runtime.cuda.LIBRARIES", (f"{library}/libcudart.so",))
    from qmdd.cli.main import cli

    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def another_version(here: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device gets another TensorRT after the build."""
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", "10.7.0")


def test_an_engine_passes_all_tiers_as_a_device_would_run_it(
    built: Path, tensorrt_device: dict[str, str]
) -> None:
    found = qmdd(tensorrt_device, "verify", built)  # no torch: golden results
    assert "torch is not installed" in found["notes"][0]
    assert found["passed"]
    tiers = {tier["tier"]: tier for tier in found["parity"]}
    assert list(tiers) == ["strict", "engine", "codes"]
    assert [tier["runtime"] for tier in found["parity"]] == ["onnxruntime", "tensorrt", "tensorrt"]
    assert all(tier["images"] == 2 for tier in found["parity"])
    assert tiers["codes"]["codes_compared"] == tiers["strict"]["codes_compared"] > 0
    assert tiers["codes"]["wrong_codes"] == tiers["strict"]["wrong_codes"] == 0
    budget = Bundle.open(built).manifest["code_budget"]
    assert 0.0005 <= budget < 0.1  # of a narrow network: what FP16 flips, over 3
    assert (tiers["strict"]["code_budget"], tiers["codes"]["code_budget"]) == (0, budget)
    assert not list(built.parent.glob("qmdd-verify-*"))


def test_bench_times_the_engine(built: Path, tensorrt_device: dict[str, str]) -> None:
    """By default on one thread, one image at a time: it was built for no more."""
    options = ("--no-twin", "--seconds", "0.2", "--size", "64")
    found = qmdd(tensorrt_device, "bench", built, *options)
    ((name, about),) = found["runtimes"].items()
    assert (name, about["version"]) == ("tensorrt", "10.3.0")
    assert about["logit_difference"] < 1e-5
    assert [(c["threads"], c["batch"]) for c in found["configurations"]] == [(1, 1)]


def test_detect_and_eval_run_the_engine(
    built: Path, exported: Path, here: Invoke, image_folder: Path, tmp_path: Path
) -> None:
    """Images larger than the engine's are cropped, smaller ones refused in one line."""
    from PIL import Image

    names = ["64.png", "90.png", "40.png"]
    for name in names:
        side = int(name[:2])
        Image.linear_gradient("L").convert("RGB").resize((side, side)).save(tmp_path / name)
    files = [str(tmp_path / name) for name in names]
    ours = json.loads(here("detect", built, *files, "--json").stdout)
    theirs = json.loads(here("detect", exported, *files[:1], "--json").stdout)
    assert ours[0]["score"] == pytest.approx(theirs[0]["score"], abs=1e-6)
    assert 0 < ours[1]["score"] < 1
    assert "the model needs at least 64x64" in ours[2]["error"]
    result = here("eval", built, "--data", image_folder, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 12


def test_what_runs_a_bundle_on_a_device(built: Path, exported: Path, here: Invoke) -> None:
    engine, without = Bundle.open(built), Bundle.open(exported)
    assert runtime_of(engine) == runtime_of(engine, TENSORRT) == TENSORRT
    assert runtime_of(engine, ONNXRUNTIME) == runtime_of(without) == ONNXRUNTIME
    assert not runs_concurrently(engine)
    assert sides_for(engine, [TENSORRT]) == {"min_side": 64, "multiple": 2, "max_side": 64}
    assert sides_for(engine, [ONNXRUNTIME]) == engine.sides == sides_for(without, [ONNXRUNTIME])


def test_no_gpu_is_no_device(built: Path, here: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the engine cannot be meant, the ONNX model runs; asked for, CUDA says what is wrong."""
    monkeypatch.setenv("STANDIN_GPUS", "0")
    assert runtime_of(Bundle.open(built)) == ONNXRUNTIME
    result = here("verify", built, "--golden", "--runtime", "tensorrt")
    assert result.exit_code == 1
    assert result.stderr == "qmdd: error: CUDA finds no GPU on this machine\n"


@pytest.mark.usefixtures("another_version")
@pytest.mark.parametrize("command", [("verify", "--golden"), ("bench", "--no-twin")])
def test_another_tensorrt_is_refused_in_one_line(
    built: Path, here: Invoke, command: tuple[str, ...]
) -> None:
    """By default, too: on a device, what took the engine's place would be slow and say nothing."""
    result = here(command[0], built, *command[1:])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "by version 10.3.0, and this machine has 10.7.0; run qmdd build again here" in line


def test_a_bundle_without_engine_says_what_to_do(exported: Path, here: Invoke) -> None:
    result = here("verify", exported, "--golden", "--runtime", "tensorrt")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "holds no engine; run qmdd build first" in line
    assert "--runtime onnxruntime" in line


def test_a_source_is_not_compared_with_an_engine(built: Path, here: Invoke) -> None:
    result = here("verify", built, "--runtime", "tensorrt")
    assert result.exit_code == 1
    assert "compared with the bundle's golden results; add --golden" in result.stderr


def test_wrong_codes_of_an_engine_are_found_in_their_layer(
    built: Path, here: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All codes of one layer, a few in a hundred of all; the budget decides."""
    monkeypatch.setenv("STANDIN_FAULT", "stages.1.0.conv1.codes")
    options = ("--golden", "--tier", "deployed", "--json")
    result = here("verify", built, *options)
    assert result.exit_code == 1
    engine, codes = json.loads(result.stdout)["parity"]
    assert engine["max_abs_logit_diff"] < 1e-5
    wrong = {layer["layer"]: layer["wrong"] == layer["codes"] for layer in codes["layers"]}
    assert [layer for layer, found in wrong.items() if found] == ["stages.1.0.conv1"]
    share = codes["wrong_codes"] / codes["codes_compared"]
    assert 0.1 < share < 0.5
    assert here("verify", built, *options, "--code-budget", share + 1e-6).exit_code == 0
    assert here("verify", built, *options, "--code-budget", share - 1e-6).exit_code == 1
    shown = here("verify", built, "--golden", "--layers", "--code-budget", 1)
    assert "codes (tensorrt): up to 100.000% of the codes and 0.02 of a logit may" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    (row,) = [row for row in rows if row and row[0] == "stages.1.0.conv1"]
    assert (row[2], row[3]) == ("0", row[1])


def test_a_wrong_logit_of_the_engine_is_found(
    built: Path, here: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_FAULT", "logit")
    result = here("verify", built, "--golden", "--json")
    assert result.exit_code == 1
    strict, engine, _codes = json.loads(result.stdout)["parity"]
    assert strict["max_abs_logit_diff"] < 1e-5
    assert engine["max_abs_logit_diff"] == pytest.approx(1, abs=1e-4)
    assert engine["logit_bar"] == 0.02


def test_a_changed_weight_is_found_before_the_engine_runs(
    exported: Path, here: Invoke, tmp_path: Path
) -> None:
    """The hash vouches for the file, so it is built; the strict tier allows no code."""
    folder = tmp_path / "changed"
    shutil.copytree(exported, folder)
    model = onnx.load(folder / MODEL)
    (weight,) = [
        t for t in model.graph.initializer if t.name == "stages.0.0.conv1.conv.weight.int8"
    ]
    codes = numpy_helper.to_array(weight).copy()
    codes.reshape(-1)[codes.size // 2] *= -1
    weight.raw_data = codes.tobytes()
    data = model.SerializeToString()
    (folder / MODEL).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"][MODEL] = entry
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    assert here("build", folder, "--side", 64).exit_code == 0
    result = here("verify", folder, "--golden", "--json")
    assert result.exit_code == 1
    strict, _engine, codes_tier = json.loads(result.stdout)["parity"]
    for tier in (strict, codes_tier):
        first = next(layer["layer"] for layer in tier["layers"] if layer["wrong"])
        assert first == "stages.0.0.conv2"


def test_an_engine_that_takes_no_golden_image_says_what_to_build(
    exported: Path, here: Invoke, tmp_path: Path
) -> None:
    folder = tmp_path / "wide"
    shutil.copytree(exported, folder)
    assert here("build", folder, "--side", 128).exit_code == 0
    result = here("verify", folder, "--golden")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "takes none of the golden images, one at a time (64x64, 64x64 pixels)" in line
    assert "--side MIN:BEST:MAX" in line


def test_an_engine_with_probes_builds_in_rtx(
    rtx: str, export: Callable[[str], Path], tmp_path: Path
) -> None:
    """A real one, *built, not run*: every code is an output, INT8 layers are still INT8."""
    folder = export("rtx")
    build_engine(folder, side="64")
    bundle = Bundle.open(folder)
    request = build_probed(bundle, read_record(bundle), [(1, 3, 64, 64)], tmp_path)
    assert (request.profile.min, request.profile.max) == ((1, 3, 64, 64), (1, 3, 64, 64))
    assert (tmp_path / ENGINE).stat().st_size > 0
    assert "1 inputs and 9 output network tensors" in (tmp_path / "build.log").read_text()
    told = json.loads((tmp_path / "result.json").read_text())
    found = audit(plan_of(bundle), [EngineLayer.from_dict(layer) for layer in told["layers"]])
    assert found.faults == []
    assert found.count("int8", built=True) == found.count("int8", built=False) > 8
