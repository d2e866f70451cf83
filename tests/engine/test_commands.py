"""``qmdd build`` and ``qmdd inspect`` as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qmdd.runtime.bundle import Bundle
from qmdd.runtime.engine import architecture

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    from qmdd.cli.main import cli

    return lambda *args: CliRunner().invoke(cli, [str(arg) for arg in args])


def test_build_then_inspect(rtx, make_bundle, invoke) -> None:
    folder = make_bundle()
    result = invoke("build", folder)
    assert result.exit_code == 0, result.stderr
    assert "INT8 x INT8 layers: 2 of 2 planned" in result.stdout
    assert f"built, not run: target rtx, tensorrt_rtx {rtx}" in result.stdout
    result = invoke("inspect", folder)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["layers.1/Conv", "Conv", "int8", "int8", "int8", "9,216", "524,288"] in rows
    assert ["head/MatMul", "MatMul", "float32", "float32", "float32", "128", "128"] in rows


def test_inspect_without_an_engine_shows_the_plan(make_bundle, invoke) -> None:
    result = invoke("inspect", make_bundle())
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["layers.0/Conv", "Conv", "int8", "-", "int8", "9,216", "524,288"] in rows
    assert "INT8 x INT8 layers planned: 2 of 4; no engine yet" in result.stdout


def test_inspect_of_a_bundle_from_before_there_were_plans(make_bundle, invoke) -> None:
    planned = invoke("inspect", make_bundle(changes={"plan": None}), "--json")
    assert planned.exit_code == 0, planned.stderr
    layers = json.loads(planned.stdout)["audit"]["layers"]
    assert [layer["planned"] for layer in layers] == ["float32", "int8", "int8", "float32"]


def test_fallback_ends_both_with_exit_code_1(rtx, make_bundle, invoke) -> None:
    folder = make_bundle(fault="axis")
    result = invoke("build", folder)
    assert result.exit_code == 1
    (said,) = result.stderr.splitlines()
    assert "was not added: layers.1/Conv: planned int8, built float32" in said
    assert said.endswith("--allow-fallback adds it all the same")
    assert "engine" not in Bundle.open(folder).manifest
    result = invoke("build", folder, "--allow-fallback")
    assert result.exit_code == 0
    result = invoke("inspect", folder)
    assert result.exit_code == 1
    assert "NOT AS PLANNED" in result.stdout
    assert "its engine is not as planned: layers.1/Conv" in result.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "1.6.0.0"}, "built by version 1.6.0.0, and this machine has 1.7."),
        ({"systems": ("Plan9",)}, "built for system Plan9, and this machine has Linux"),
        ({"machine": "riscv64"}, "built for architecture riscv64, and this machine has "),
    ],
)
def test_check_refuses_an_engine_of_another_machine(
    rtx, make_bundle, add_engine, invoke, changes: dict, said: str
) -> None:
    """Nothing is loaded (not even an engine is there, only six bytes), and no GPU is needed."""
    fits = {
        "backend": "tensorrt_rtx",
        "version": rtx,
        "systems": ("Linux",),
        "machine": architecture(),
    }
    # The audit of the stand-in's empty layer table fails, too; this comes first.
    result = invoke("inspect", add_engine(make_bundle(), **{**fits, **changes}), "--check")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert said in line
    assert line.endswith("; run qmdd build again here")


def test_check_of_a_bundle_without_an_engine(make_bundle, invoke) -> None:
    result = invoke("inspect", make_bundle(), "--check")
    assert result.exit_code == 1
    assert "holds no engine; run qmdd build first" in result.stderr


def test_json_of_both(rtx, make_bundle, invoke) -> None:
    folder = make_bundle()
    built = json.loads(invoke("build", folder, "--json", "--side", "64").stdout)
    seen = json.loads(invoke("inspect", folder, "--json").stdout)
    assert built["record"] == seen["record"]
    assert built["audit"] == seen["audit"]
    assert seen["label"] == "built, not run"
    assert seen["audit"]["passed"] is True


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_plot(make_bundle, invoke, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    places = [tmp_path / f"{index}{suffix}" for index in range(2)]
    folder = make_bundle()
    for place in places:
        result = invoke("inspect", folder, "--plot", place)
        assert result.exit_code == 0, result.stderr
    assert places[0].read_bytes() == places[1].read_bytes()
    if suffix == ".svg":
        assert "planned, not built" in places[0].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target", "orin-nanu"], "did you mean orin-nano"),
        (["--target", "orin-nano@4.6"], "orin-nano runs JetPack 6.2, 6.1, 6.0, 5.1, 7.2"),
        (["--side", "x"], "give one number, or LEAST:BEST:MOST"),
        (["--batch", "4:2:1"], "must ascend"),
        (["--workspace", "0"], "0 is not in the range"),
        (["--timeout", "0"], "0 is not in the range"),
    ],
)
def test_wrong_usage(make_bundle, invoke, args: list[str], said: str) -> None:
    result = invoke("build", make_bundle(), *args)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        ("build", ["--side", "600"], "--side 600: must ascend within 32..512"),
        ("build", ["--side", "65"], "--side 65: must be multiples of 2"),
        ("build", ["--batch", "1000"], "--batch 1000: must ascend within 1..256"),
        ("build", ["--target", "onnx"], "target onnx has no engine"),
        ("inspect", ["--plot", "x.gif"], "a plot is a .png, .svg, .pdf file"),
        ("inspect", ["--plot", "no/where/x.png"], "no/where: no such folder"),
    ],
)
def test_failure_is_one_line(make_bundle, invoke, command, args, said) -> None:
    result = invoke(command, make_bundle(), *args)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", ["build", "inspect"])
def test_no_such_bundle(invoke, tmp_path: Path, command: str) -> None:
    result = invoke(command, tmp_path / "none")
    assert result.exit_code == 1
    assert "no such bundle" in result.stderr


@pytest.mark.parametrize(
    "table", [b"{}", b'{"layers": [{}], "warnings": []}', b'{"layers": [], "warnings": [{}]}']
)
def test_inspect_of_a_spoilt_layer_table(make_bundle, add_engine, invoke, table: bytes) -> None:
    import hashlib

    folder = add_engine(make_bundle())
    path = folder / "engine/1/layers.json"
    path.write_bytes(table)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = {"sha256": hashlib.sha256(table).hexdigest(), "bytes": len(table)}
    manifest["files"]["engine/1/layers.json"] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = invoke("inspect", folder)
    assert result.exit_code == 1
    assert "layer table" in result.stderr
    assert "defect" not in result.stderr


def test_inspect_needs_no_heavy_library(make_bundle) -> None:
    """What a device has: neither torch nor onnx; the same for ``build``'s own imports."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'ml_dtypes'): sys.modules[name] = None\n"
        "import qmdd.exporter.engine.build, qmdd.exporter.engine.child\n"
        "from qmdd.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(make_bundle())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "layers.1/Conv" in done.stdout


def test_missing_backend_names_its_extra(make_bundle) -> None:
    """In the builder's process, which is told by an import hook that the wheel is not there."""
    code = (
        "import sys\n"
        "from qmdd.exporter.engine import process\n"
        "hook = ('import sys; sys.modules[\"tensorrt_rtx_libs\"] = None;'\n"
        "        'from importlib import util; find = util.find_spec;'\n"
        "        'util.find_spec = lambda n: None if n == \"tensorrt_rtx_libs\" else find(n);'\n"
        "        'from qmdd.exporter.engine.child import main; sys.exit(main())')\n"
        "process.COMMAND = (sys.executable, '-c', hook)\n"
        "from qmdd.cli.main import main\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", str(make_bundle())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.endswith("TensorRT-RTX is not installed; run: pip install 'qmdd[rtx]'")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_the_bundle_as_it_was(make_bundle, contents, number: int, code: int) -> None:
    folder = make_bundle()
    before = contents(folder)
    script = (
        "import sys\n"
        "from qmdd.exporter.engine import process\n"
        "process.COMMAND = (sys.executable, '-c', 'import time; time.sleep(60)')\n"
        "from qmdd.cli.main import main\nmain()"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script, "build", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not list(folder.glob(".engine.*/output.log")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # the builder runs
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert err.strip().endswith(f"nothing was added: {folder} is as it was")
    assert len(err.strip().splitlines()) == 1  # click begins a new line after ^C
    assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"]


def test_defaults_of_the_command_line_are_the_builders() -> None:
    from qmdd.cli.build import TIMEOUT
    from qmdd.exporter.engine import build

    assert TIMEOUT == build.TIMEOUT
