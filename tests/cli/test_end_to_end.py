"""The main job as a user does it: the built-in checkpoint, the sample images, real processes."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from PIL import Image

from qmdd.exporter.samples import sample_images
from qmdd.models.zoo import builtin_checkpoint

TWO_SAMPLES = [str(path) for path in sample_images()[::4]]


def qmdd(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qmdd.cli.main", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The bundle of ``qmdd export --bits 2 --json``, and what it reported."""
    folder = tmp_path_factory.mktemp("export")
    run = qmdd("export", "--bits", 2, "--json", "-o", "bundle", cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder / "bundle", json.loads(run.stdout)


@pytest.fixture
def bundle(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(exported[0], tmp_path / "bundle"))


def one_line(run: subprocess.CompletedProcess[str] | Result) -> str:
    """The error's only line: no traceback, nothing around it."""
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("qmdd: error: ")
    return lines[0]


def test_export_is_exact_and_small(exported: tuple[Path, dict[str, Any]]) -> None:
    """The bars of the main job: 0 wrong codes, logits to 1e-5, no verdict flipped, 4.25 MB."""
    path, report = exported
    assert {"bundle", "arch", "bits", "target", "model_bytes", "seconds"} <= report.keys()
    assert (report["arch"], report["bits"], report["target"]) == ("resnet23", 2, "onnx")
    assert report["model_bytes"] == (path / "model.onnx").stat().st_size <= 4_250_000
    assert [tier["tier"] for tier in report["parity"]] == ["strict", "deployed"]
    for tier in report["parity"]:
        assert tier["images"] == len(sample_images()) == 8
        assert tier["codes_compared"] > 18_000_000
        assert tier["wrong_codes"] == 0
        assert tier["max_abs_logit_diff"] <= 1e-5
        assert tier["flipped_verdicts"] == 0
        assert len(tier["layers"]) == 18


def test_codes_are_not_all_the_same(exported: tuple[Path, dict[str, Any]]) -> None:
    """Parity of a network that says nothing would prove nothing.

    On two images every layer uses at least three of its four codes, none of them nearly always;
    most layers use all four.
    """
    from qmdd.runtime.golden import read_golden

    golden = read_golden(exported[0] / "parity" / "golden.safetensors")
    used = []
    for layer in golden.layers:
        seen = np.concatenate([codes[layer].reshape(-1) for codes in golden.codes])
        counts = np.bincount(seen, minlength=4)
        assert counts.max() < 0.95 * seen.size, layer
        used.append(int((counts > 0).sum()))
    assert len(used) == 18
    assert min(used) >= 3
    assert used.count(4) > len(used) / 2


def test_the_model_is_plain_onnx(exported: tuple[Path, dict[str, Any]]) -> None:
    """The checker passes, a session needs no options, and the graph is what was promised."""
    path = exported[0] / "model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Log") == kinds.count("Resize") == kinds.count("Sub") == 0
    makers = {out: node for node in model.graph.node for out in node.output}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convs) == 22  # the stem, 18 of CQBs, 3 that downsample
    for conv in convs:
        data, weight = (makers[name].op_type for name in conv.input[:2])
        assert weight == "DequantizeLinear"
        assert data == "Cast" if makers[conv.input[0]].input[0] == "image" else "DequantizeLinear"
    session = onnxruntime.InferenceSession(str(path))
    for shape in ((1, 3, 256, 256), (3, 3, 64, 96)):
        (logits,) = session.run(None, {"image": np.zeros(shape, dtype=np.uint8)})
        assert logits.shape == shape[:1]
        assert logits.dtype == np.float32


def test_exporting_twice_gives_the_same_bytes(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = qmdd("export", "--bits", 2, "--no-verify", "-o", tmp_path / "again")
    assert run.returncode == 0, run.stderr
    assert "not verified" in run.stdout
    first, second = exported[0] / "model.onnx", tmp_path / "again" / "model.onnx"
    assert first.read_bytes() == second.read_bytes()


def test_nothing_of_this_machine_is_in_the_bundle(exported: tuple[Path, dict[str, Any]]) -> None:
    """No path, no user, no traceback of the tracer."""
    here = [str(Path.cwd()), str(Path.home()), str(exported[0].parent), "site-packages"]
    for path in exported[0].rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [word for word in here if len(word) > 5 and word.encode() in data], path


def test_verify_repeats_the_proof(exported: tuple[Path, dict[str, Any]]) -> None:
    run = qmdd("verify", exported[0], *(a for p in TWO_SAMPLES for a in ("--images", p)), "--json")
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["passed"] is True
    assert [tier["wrong_codes"] for tier in report["parity"]] == [0, 0]
    assert [tier["images"] for tier in report["parity"]] == [2, 2]


def test_detect_scores_the_samples(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """JSON and CSV agree, one entry an image, errors beside scores and exit code 1."""
    (tmp_path / "broken.png").write_text("not an image")
    Image.new("RGB", (1, 1)).save(tmp_path / "tiny.png")
    paths = [*TWO_SAMPLES, tmp_path]
    run = qmdd("detect", exported[0], *paths, "--json")
    assert run.returncode == 1
    entries = json.loads(run.stdout)
    assert [Path(e["path"]).name for e in entries] == [
        *(Path(p).name for p in TWO_SAMPLES),
        "broken.png",
        "tiny.png",
    ]
    assert all(0 <= e["score"] <= 1 and e["verdict"] in ("real", "fake") for e in entries[:2])
    assert all(e.keys() == {"path", "error"} for e in entries[2:])
    assert "32x32" in entries[3]["error"]
    table = qmdd("detect", exported[0], *paths, "--csv")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["path"] for row in rows] == [entry["path"] for entry in entries]
    assert [float(row["score"]) for row in rows[:2]] == [e["score"] for e in entries[:2]]


def test_detect_agrees_with_the_golden_logits(exported: tuple[Path, dict[str, Any]]) -> None:
    """The score of a golden image is the sigmoid of the source model's logit."""
    from qmdd.runtime.golden import read_golden

    golden = read_golden(exported[0] / "parity" / "golden.safetensors")
    run = qmdd("detect", exported[0], *TWO_SAMPLES, "--json")
    scores = [entry["score"] for entry in json.loads(run.stdout)]
    expected = 1 / (1 + np.exp(-golden.logits.astype(np.float64)))
    assert np.abs(np.array(scores) - expected).max() <= 1e-5


@pytest.mark.parametrize("name", ["model.onnx", "parity/golden.safetensors"])
def test_one_changed_byte_is_refused(bundle: Path, name: str) -> None:
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    for command in (("detect", bundle, TWO_SAMPLES[0]), ("verify", bundle)):
        run = qmdd(*command)
        assert run.returncode == 1
        assert name in one_line(run)
        assert "SHA-256" in run.stderr


def _pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": [1.0]}))


def _truncated(path: Path) -> None:
    source = builtin_checkpoint("resnet23", 2)
    assert source is not None
    path.write_bytes(source.read_bytes()[:100_000])


def _foreign(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"conv1.weight": np.zeros((2, 2), np.float32)}, path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such checkpoint"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (_truncated, "not a whole safetensors file"),
        (_foreign, "not a qmdd checkpoint"),
        (_pickled, "never unpickled"),
    ],
)
def test_bad_checkpoints(make: Any, says: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.safetensors"
    make(checkpoint)
    run = qmdd("export", "--checkpoint", checkpoint, "-o", tmp_path / "out")
    assert run.returncode == 1
    assert says in one_line(run)
    assert str(checkpoint) in run.stderr
    assert not (tmp_path / "out").exists()


def test_bits_that_do_not_match(tmp_path: Path) -> None:
    run = qmdd(
        "export", "--checkpoint", builtin_checkpoint("resnet23", 2), "--bits", 3, cwd=tmp_path
    )
    assert run.returncode == 1
    assert "--bits 3 does not fit" in one_line(run)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_does_not_exist(tmp_path: Path) -> None:
    run = qmdd("export", "--target", "toaster", cwd=tmp_path)
    assert run.returncode == 2
    assert "toaster" in run.stderr
    assert "onnx" in run.stderr
    assert "Traceback" not in run.stderr


def test_an_output_that_is_in_the_way(
    bundle: Path, invoke: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An existing bundle needs --force; a foreign folder and a file are never replaced."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, force in ((bundle, ()), ("photos", ("--force",)), ("file", ("--force",))):
        run = invoke("export", "--bits", 2, "-o", place, *force)
        assert run.exit_code == 1
        assert "exists" in one_line(run) or "holds other files" in run.stderr
    assert (tmp_path / "photos" / "a.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"


def _wait_for_main(process: subprocess.Popen[str]) -> None:
    """Until our main function runs: before it, Ctrl-C is Python's own matter.

    The first that it does is to catch SIGTERM, which Linux tells of.
    """
    status = Path(f"/proc/{process.pid}/status")
    end = time.monotonic() + 60
    while status.exists() and time.monotonic() < end:
        caught = next(line for line in status.read_text().splitlines() if "SigCgt" in line)
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.02)


@pytest.mark.parametrize("when", [1.0, 4.0])
def test_interrupting_an_export_leaves_nothing(when: float, bundle: Path, tmp_path: Path) -> None:
    """Ctrl-C early or late: the old bundle stands, nothing half-written lies beside it."""
    before = (bundle / "manifest.json").read_bytes()
    command = [sys.executable, "-m", "qmdd.cli.main", "export", "--bits", "2", "--force"]
    run = subprocess.Popen(
        [*command, "-o", str(bundle)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _wait_for_main(run)
    time.sleep(when)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=120)
    # CPython ends by the signal itself where it came inside an eval() or exec(), of which imports
    # are full, although it was caught: a shell says 130 to both.
    assert run.returncode in (130, -signal.SIGINT)
    assert "qmdd: interrupted" in stderr
    assert "Traceback" not in stderr
    assert (bundle / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    run = qmdd("export", "--bits", 2, "-o", tmp_path / "bundle")
    tmp_path.chmod(0o700)
    assert run.returncode == 1
    assert "Permission denied" in one_line(run)


def test_a_full_disk(tmp_path: Path) -> None:
    """Writing stops at 1 MB, as on a full disk: one line, nothing left."""
    limited = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from qmdd.cli.main import main; main()"
    )
    command = [sys.executable, "-c", limited, "export", "--bits", "2", "-o", "bundle"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, timeout=280, check=False
    )
    assert run.returncode == 1
    assert "bundle" in one_line(run)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_training_ends_as_an_unbroken_one(image_folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, the same command again: the same frozen bytes."""
    recipe = tmp_path / "tiny.toml"
    stage = "[[stage]]\nbits = {}\nepochs = 1\nlr = 1e-3\nbatch = 4\ncrop = 32\nwarmup = 1\n"
    recipe.write_text("statistics = 12\nwidth = 0.25\n" + stage.format(32) + stage.format(2))
    args = ["train", "--data", image_folder, "--recipe", recipe, "--save-every", 1, "--out"]
    whole = qmdd(*args, tmp_path / "whole", "--threads", 1)
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "qmdd.cli.main", *map(str, args), str(tmp_path / "killed")]
    victim = subprocess.Popen([*command, "--threads", "1"])
    state = tmp_path / "killed" / "state.safetensors"
    for _ in range(600):
        if state.exists() or victim.poll() is not None:
            break
        time.sleep(0.05)
    assert victim.poll() is None, "it ended before it could be killed"
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    again = qmdd(*args, tmp_path / "killed", "--threads", 1)
    assert again.returncode == 0, again.stderr
    ends = [tmp_path / name / "frozen.safetensors" for name in ("whole", "killed")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
