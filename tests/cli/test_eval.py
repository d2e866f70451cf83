"""``qmdd eval``: what it prints, what it writes, how it ends; bundle and checkpoint agree."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def _shallow() -> Iterator[None]:
    """One block to a stage, so that the export takes a second."""
    from qmdd.models import resnet

    layouts = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "LAYOUTS", layouts)
        yield


class Pair(NamedTuple):
    """A checkpoint (1/8 of the width; trained on ``alpha``, it says) and the bundle made of it."""

    checkpoint: Path
    bundle: Path


def _pair(folder: Path, settle: Any, bits: int) -> Pair:
    import torch

    from qmdd.calibration.train import save_detector
    from qmdd.exporter.export import export_bundle
    from qmdd.models import build_detector

    with torch.random.fork_rng():
        torch.manual_seed(1)
        detector = settle(build_detector("resnet23", bits, width=1 / 8))
    pair = Pair(folder / f"{bits}.safetensors", folder / f"bundle-{bits}")
    save_detector(detector, pair.checkpoint, {"generators": '["alpha"]'})
    export_bundle(pair.checkpoint, pair.bundle, verify=False)
    return pair


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, settle: Any) -> Pair:
    return _pair(tmp_path_factory.mktemp("pair"), settle, 2)


@pytest.fixture(scope="module")
def float_pair(tmp_path_factory: pytest.TempPathFactory, settle: Any) -> Pair:
    return _pair(tmp_path_factory.mktemp("pair"), settle, 32)


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change; one image is odd and longer than a bundle takes.

    Doubled pixels leave no residue at all, so that all fakes would have one score; these are made
    by averaging neighbours.
    """
    folder = Path(shutil.copytree(image_folder, tmp_path / "images"))
    for path in folder.glob("**/1_fake/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image, dtype=np.float64)
        rolled = np.roll(pixels, 1, axis=0) + np.roll(pixels, 1, axis=1)
        Image.fromarray((rolled / 2).astype(np.uint8)).save(path)
    rng = np.random.default_rng(0)
    long = rng.integers(0, 256, (35, 601, 3), dtype=np.uint8)
    Image.fromarray(long).save(folder / "alpha/0_real/0.png")
    return folder


def _without(*packages: str) -> str:
    """Code after which these packages cannot be imported, as where they are not installed."""
    return (
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Gone())"
    )


def test_table(invoke, pair: Pair, images: Path) -> None:
    """The bundle's own record groups the generators: exported from the checkpoint's."""
    result = invoke("eval", pair.bundle, "--data", images)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    assert lines[0] == f"bundle {pair.bundle}: resnet23, 2 bits"
    assert lines[1] == f"{images}: 12 images, 2 generators"
    first = [line.split("  ")[0].strip() for line in lines]
    at = first.index("generator")
    assert first[at + 2 : at + 7] == ["alpha", "mean, seen", "beta", "mean, unseen", "mean"]
    assert "threshold 0.5; in brackets 95 % confidence intervals" in result.stdout
    assert lines[-1] == "seen in training, by the detector's own record: alpha"


@pytest.mark.parametrize("bits", [2, 32])
def test_bundle_and_checkpoint_agree(
    invoke, request: pytest.FixtureRequest, bits: int, images: Path, tmp_path: Path
) -> None:
    """The same pixels, the same verdicts, the same metrics; the scores to 1e-5 (1e-4 in float)."""
    pair = request.getfixturevalue("pair" if bits == 2 else "float_pair")
    reports, scores = [], []
    for index, path in enumerate(pair):
        out = tmp_path / f"{index}.csv"
        result = invoke("eval", path, "--data", images, "--json", "--scores", out, "--threads", 1)
        assert result.exit_code == 0, result.stderr
        reports.append(json.loads(result.stdout))
        scores.append(_rows(out))
    assert [report["kind"] for report in reports] == ["checkpoint", "bundle"]
    for part in ("generators", "means", "seen", "threshold", "images", "arch", "bits", "skipped"):
        assert reports[0][part] == reports[1][part], part
    assert reports[0]["seen"] == {"origin": "record", "generators": ["alpha"]}
    assert len(scores[0]) == 12
    for source, ours in zip(*scores, strict=True):
        assert {**source, "score": ""} == {**ours, "score": ""}
        values = float(source["score"]), float(ours["score"])
        assert values[0] == pytest.approx(values[1], abs=1e-5 if bits == 2 else 1e-4)
        assert (values[0] > 0.5) == (values[1] > 0.5)
    # Not all alike, or agreement would prove nothing.
    assert len({row["score"] for row in scores[0]}) == 12


def test_json_can_be_computed_from_the_scores(
    invoke, pair: Pair, images: Path, tmp_path: Path
) -> None:
    """Also at another threshold, which --seen does not move."""
    from sklearn.metrics import average_precision_score

    out = tmp_path / "scores.csv"
    args = ("--json", "--scores", out, "--threshold", 0.4, "--seen", "beta")
    result = invoke("eval", pair.bundle, "--data", images, *args)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["threshold"] == 0.4
    assert report["seen"] == {"origin": "given", "generators": ["beta"]}
    assert [report["generators"][name]["group"] for name in ("alpha", "beta")] == ["unseen", "seen"]
    rows = _rows(out)
    aps = []
    for generator, found in report["generators"].items():
        mine = [row for row in rows if row["generator"] == generator]
        labels = [int(row["label"]) for row in mine]
        scores = [float(row["score"]) for row in mine]
        right = [(s > 0.4) == (y == 1) for s, y in zip(scores, labels, strict=True)]
        aps.append(average_precision_score(labels, scores))
        assert found["acc"] == pytest.approx(sum(right) / 6)
        assert found["ap"] == pytest.approx(aps[-1])
    assert report["means"]["all"]["ap"] == pytest.approx(sum(aps) / 2)


def test_csv(invoke, pair: Pair, images: Path) -> None:
    """Generators and means; what has no value is empty."""
    shutil.rmtree(images / "beta/cat/0_real")
    result = invoke("eval", pair.bundle, "--data", images, "--csv")
    assert result.exit_code == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["kind"], row["generator"]) for row in rows] == [
        *(("generator", name) for name in ("alpha", "beta")),
        *(("mean", name) for name in ("seen", "unseen", "all")),
    ]
    beta = rows[1]
    assert (beta["images"], beta["reals"], beta["fakes"]) == ("3", "0", "3")
    assert beta["ap"] == beta["ap_low"] == beta["real_acc"] == ""
    assert float(beta["fake_acc_low"]) <= float(beta["fake_acc"]) <= float(beta["fake_acc_high"])


def test_a_generator_of_one_class(invoke, pair: Pair, images: Path) -> None:
    """A dash in the table, null in JSON, a line that says so."""
    shutil.rmtree(images / "beta/cat/0_real")
    plain = invoke("eval", pair.bundle, "--data", images)
    assert plain.exit_code == 0
    (row,) = [line for line in plain.stdout.splitlines() if line.startswith("beta  ")]
    assert row.split()[-2] == "-"
    assert "beta has no real images: no AP of it" in plain.stdout
    found = json.loads(invoke("eval", pair.bundle, "--data", images, "--json").stdout)
    assert found["generators"]["beta"]["ap"] is None
    assert found["generators"]["beta"]["ap_ci"] == [None, None]
    assert found["means"]["all"]["generators"]["ap"] == 1


def test_known_sets(invoke, pair: Pair, image_folder: Path, tmp_path: Path) -> None:
    """UniversalFakeDetect's release beside ForenSynths: names, order, shared real images."""
    source = image_folder / "alpha"
    for folder in ("imagenet/0_real", "laion/0_real", "guided/1_fake", "dalle/1_fake"):
        shutil.copytree(source / folder[-6:], tmp_path / "diffusion_datasets" / folder)
    for name in ("stylegan", "progan"):
        shutil.copytree(source, tmp_path / "test_set" / name / "cat")
    result = invoke("eval", pair.bundle, "--data", tmp_path, "--seen", "ProGAN")
    assert result.exit_code == 0, result.stderr
    assert "15 images, 4 generators" not in result.stdout
    assert "24 images, 4 generators" in result.stdout
    order = ["ProGAN", "mean, seen", "StyleGAN", "DALLE", "ADM", "mean, unseen"]
    found = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    assert [name for name in found if name in order] == order


def test_forensics_mini_is_grouped_without_a_record(
    invoke, pair: Pair, image_folder: Path, tmp_path: Path
) -> None:
    """A detector that says nothing of its training: the data set's own rule, told as such."""
    bundle = Path(shutil.copytree(pair.bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    del manifest["source"]["generators"]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name in ("dcgan_face", "span_shuffle"):
        shutil.copytree(image_folder / "alpha", tmp_path / "test" / name)
    result = invoke("eval", bundle, "--data", tmp_path / "test")
    assert result.exit_code == 0, result.stderr
    order = ["span_shuffle", "mean, seen", "dcgan_face", "mean, unseen", "mean"]
    found = [line.split("  ")[0].strip() for line in result.stdout.splitlines()]
    assert [name for name in found if name in order] == order
    assert "if the detector was trained on forensics-mini's train folder" in result.stdout


@pytest.mark.parametrize(("name", "said"), [("ours", "where the manifest says"), ("", "SHA-256")])
def test_a_model_that_does_not_match_its_manifest(
    invoke, pair: Pair, images: Path, tmp_path: Path, name: str, said: str
) -> None:
    """Whole and loadable, but not the model that the manifest speaks of: longer, or as long."""
    import onnx

    bundle = Path(shutil.copytree(pair.bundle, tmp_path / "bundle"))
    model = onnx.load(bundle / "model.onnx")
    model.producer_name = name + model.producer_name[::-1]
    onnx.save(model, bundle / "model.onnx")
    result = invoke("eval", bundle, "--data", images)
    assert result.exit_code == 1
    assert f"{bundle / 'model.onnx'}: " in result.stderr
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_foreign_and_truncated_checkpoints(
    invoke, pair: Pair, images: Path, tmp_path: Path
) -> None:
    """Another project's tensors, and the first half of one of ours."""
    from safetensors.numpy import save_file

    foreign, cut = tmp_path / "foreign.safetensors", tmp_path / "cut.safetensors"
    save_file({"fc.weight": np.zeros((2, 2), dtype=np.float32)}, foreign)
    whole = pair.checkpoint.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (foreign, cut):
        result = invoke("eval", path, "--data", images)
        assert result.exit_code == 1
        assert str(path) in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert result.stdout == ""


def test_a_built_in_checkpoint_by_its_name(
    invoke, images: Path, monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    from qmdd.models import zoo

    monkeypatch.setattr(zoo, "builtin_checkpoints", lambda: [pair.checkpoint])
    result = invoke("eval", pair.checkpoint.stem, "--data", images, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["kind"] == "checkpoint"


def test_plot(invoke, pair: Pair, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "chart.png"
    result = invoke("eval", pair.bundle, "--data", images, "--plot", out)
    assert result.exit_code == 0, result.stderr
    with Image.open(out) as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_unusable_images(invoke, pair: Pair, images: Path, tmp_path: Path, kind: str) -> None:
    """Without --skip-bad the run fails and nothing is written; with it they are counted, named."""
    whole = json.loads(invoke("eval", getattr(pair, kind), "--data", images, "--json").stdout)
    bad = [images / "alpha/0_real/a.png", images / "beta/cat/1_fake/late.png"]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes((images / "alpha/1_fake/0.png").read_bytes()[:3000])
    out = tmp_path / "scores.csv"
    args = ("eval", getattr(pair, kind), "--data", images, "--json", "--scores", out)
    result = invoke(*args)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert not out.exists()
    assert result.stderr.startswith(
        f"qmdd: error: 2 images of 14 cannot be used, the first: {bad[0]}"
    )
    assert "--skip-bad" in result.stderr
    assert len(result.stderr.splitlines()) == 1

    result = invoke(*args, "--skip-bad")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0] == "qmdd: left out 2 images that cannot be used:"
    assert [str(path) in line for path, line in zip(bad, lines[1:], strict=True)] == [True, True]
    report = json.loads(result.stdout)
    assert [item["path"] for item in report["skipped"]] == [str(path) for path in bad]
    assert report["means"] == whole["means"]
    assert len(out.read_text().splitlines()) == 13


def test_images_outside_the_layout_are_counted(invoke, pair: Pair, images: Path) -> None:
    """Not measured, and not passed over in silence; --skip-bad is not needed for them."""
    before = invoke("eval", pair.bundle, "--data", images, "--json")
    assert json.loads(before.stdout)["outside"] == []
    strays = [images / "alpha/0_real_more/a.png", images / "cover.png"]
    for path in strays:
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(path)
    result = invoke("eval", pair.bundle, "--data", images, "--json")
    assert result.exit_code == 0
    assert result.stderr == (
        f"qmdd: left out 2 images in no class folder, the first: {strays[0]}\n"
    )
    report = json.loads(result.stdout)
    assert report["outside"] == [str(path) for path in strays]
    assert report["generators"] == json.loads(before.stdout)["generators"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        ("gone", "no such folder"),
        ("", "no images in the layout"),
        ("gan/0_real", "no image in any 1_fake folder"),
        ("gan/1_fake", "no image in any 0_real folder"),
        ("gan/real", "is in neither"),
        ("train/gan/0_real", "holds splits, not generators"),
    ],
)
def test_bad_folders(invoke, pair: Pair, tmp_path: Path, make: str, said: str) -> None:
    """Found before the detector is opened; one line, exit code 1."""
    data = tmp_path / "data"
    if make != "gone":
        (data / make).mkdir(parents=True)
        if make:
            Image.new("RGB", (40, 40)).save(data / make / "a.png")
    for path in (*pair, tmp_path / "no-detector"):
        result = invoke("eval", path, "--data", data)
        assert result.exit_code == 1
        assert said in result.stderr
        assert result.stderr.startswith("qmdd: error: ")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{tmp}/none"], "no such bundle or checkpoint"),
        (["{bundle}/model.onnx"], "not a folder; give the bundle's folder"),
        (["{bundle}/manifest.json"], "not a folder; give the bundle's folder"),
        (["{tmp}"], "manifest.json: missing"),
        (["{images}/alpha/0_real/0.png"], "not a whole safetensors file"),
        (["{bundle}", "--seen", "gamma"], "no generator 'gamma' to group as seen; there are alpha"),
        (["{bundle}", "--scores", "{tmp}"], "a folder; name a file"),
        (["{bundle}", "--scores", "{tmp}/no/such.csv"], "/no: no such folder"),
        (["{bundle}", "--plot", "{tmp}/a.gif"], "a plot is a .png, .svg, .pdf file"),
    ],
)
def test_bad_input(
    invoke, pair: Pair, images: Path, tmp_path: Path, args: list[str], said: str
) -> None:
    names = {"tmp": tmp_path, "bundle": pair.bundle, "images": images}
    result = invoke("eval", *(arg.format(**names) for arg in args), "--data", images)
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["b"], "Missing option '--data'"),
        (["--data", "d"], "Missing argument 'BUNDLE|CHECKPOINT'"),
        (["b", "--data", "d", "--json", "--csv"], "exclude each other"),
        (["b", "--data", "d", "--threshold", "2"], "not in the range"),
        (["b", "--data", "d", "--threshold", "nan"], "not a number"),
    ],
)
def test_wrong_usage(invoke, args: list[str], said: str) -> None:
    result = invoke("eval", *args)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_bundle_is_evaluated_without_torch(process, pair: Pair, images: Path) -> None:
    """Nor with anything else that the extra ``runtime`` does not hold."""
    code = _without(
        *("torch", "onnx", "onnxscript", "onnx_graphsurgeon", "ml_dtypes"),
        *("sklearn", "scipy", "matplotlib"),
    )
    done = process("eval", pair.bundle, "--data", images, "--json", code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 12


def test_missing_libraries_name_their_extra(process, pair: Pair, images: Path) -> None:
    """What to install differs: runtime for a bundle, train for a checkpoint, plots for a chart."""
    for blocked, path, more, extra in (
        ("onnxruntime", pair.bundle, (), "runtime"),
        ("torch", pair.checkpoint, (), "train"),
        ("matplotlib", pair.bundle, ("--plot", images / "a.png"), "plots"),
    ):
        done = process("eval", path, "--data", images, *more, code=_without(blocked))
        assert done.returncode == 1
        assert f"qmdd[{extra}]" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_interrupted(pair: Pair, images: Path, tmp_path: Path) -> None:
    """Ctrl-C while it scores: one line, exit code 130, no file."""
    out, ready = tmp_path / "scores.csv", tmp_path / "ready"
    code = (
        "import pathlib, sys, time\n"
        "from qmdd.runtime import pipeline\n"
        "original = pipeline.load_prepared\n"
        "def slow(*arguments):\n"
        f"    pathlib.Path({str(ready)!r}).touch()\n"
        "    time.sleep(2)\n"
        "    return original(*arguments)\n"
        "pipeline.load_prepared = slow\n"
        "from qmdd.cli.main import main\n"
        "main()"
    )
    args = ("eval", pair.bundle, "--data", images, "--scores", out)
    running = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(600):
        if ready.exists():
            break
        time.sleep(0.05)
    assert ready.exists()
    running.send_signal(signal.SIGINT)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == 130
    assert (stdout, stderr.strip()) == ("", "qmdd: interrupted; nothing was written")
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_scores_that_cannot_be_written(invoke, pair: Pair, images: Path, tmp_path: Path) -> None:
    """The result is printed all the same: it took long to come by."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    result = invoke("eval", pair.bundle, "--data", images, "--scores", closed / "a.csv")
    assert result.exit_code == 1
    assert "mean" in result.stdout
    assert "Permission denied" in result.stderr
