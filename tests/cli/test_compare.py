"""``qmdd compare``: any mix of bundles and checkpoints, what it prints and how it ends."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest


@pytest.fixture(scope="module", autouse=True)
def _shallow() -> Iterator[None]:
    """One block to a stage, so that an export takes a second."""
    from qmdd.models import resnet

    layouts = {name: (block, (1, 1, 1, 1)) for name, (block, _) in resnet.LAYOUTS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet, "LAYOUTS", layouts)
        yield


class Made(NamedTuple):
    """A checkpoint (1/8 of the width), its bundle, the same with one changed weight code."""

    checkpoint: Path
    bundle: Path
    changed: Path
    changed_bundle: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, settle: Any) -> Made:
    import torch

    from qmdd.exporter.export import export_bundle
    from qmdd.models import build_detector, quantised_convolutions
    from qmdd.models.checkpoint import checkpoint_bytes, freeze

    folder = tmp_path_factory.mktemp("compare")
    names = ("a.safetensors", "a-bundle", "b.safetensors", "b-bundle")
    found = Made(*(folder / name for name in names))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        detector = freeze(settle(build_detector("resnet23", 2, width=1 / 8)))
    found.checkpoint.write_bytes(checkpoint_bytes(detector))
    codes = dict(quantised_convolutions(detector))["stages.1.0.conv1.conv"].frozen().codes
    codes[0] = -codes[0]
    found.changed.write_bytes(checkpoint_bytes(detector))
    export_bundle(found.checkpoint, found.bundle, verify=False)
    export_bundle(found.changed, found.changed_bundle, verify=False)
    return found


def report(invoke: Any, *args: object) -> dict[str, Any]:
    result = invoke("compare", *args, "--json")
    assert result.exit_code == 0, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def test_a_bundle_and_its_checkpoint_are_the_same_network(invoke, made: Made) -> None:
    found = report(invoke, made.bundle, made.checkpoint, "--checkpoint", made.checkpoint)
    assert found["network"]["same"]
    facts = {row["what"]: row for row in found["facts"]}
    assert facts["source, SHA-256"]["same"]
    assert facts["weights"]["same"]
    assert facts["kind"] == {
        "what": "kind",
        "a": "bundle",
        "b": "frozen checkpoint",
        "same": False,
    }
    assert found["plan"] == "not both are bundles"
    assert found["size_ratio"] == pytest.approx(
        made.checkpoint.stat().st_size / (made.bundle / "model.onnx").stat().st_size
    )


def test_a_changed_channel_is_found_and_the_rest_is_said_to_be_the_same(invoke, made: Made) -> None:
    sources = ("--checkpoint", made.changed, "--checkpoint", made.checkpoint)
    result = invoke("compare", made.bundle, made.changed_bundle, *sources)
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    count = 8 * 3 * 3  # a channel's weights
    assert f"stages.1.0.conv1 16x8x3x3 2 2 {count} of 1,152 0 of 16 0 of 3" in lines
    assert not [line for line in lines if line.startswith("stages.2")]
    assert "same: the plans of all layers" in lines
    assert [line for line in lines if line.startswith("same: kind (bundle), network (resnet23)")]
    assert [line for line in lines if "activation codes differ, logits by up to" in line]
    everything = invoke("compare", made.bundle, made.changed_bundle, *sources, "--layers")
    assert "stages.2.0.conv1" in everything.stdout


def test_without_a_source_all_but_the_weights_is_compared(invoke, made: Made) -> None:
    result = invoke("compare", made.bundle, made.changed_bundle)
    assert result.exit_code == 0, result.stderr
    assert "network not compared: " in result.stdout
    assert "which is not built in; name the file with --checkpoint" in result.stdout
    assert "activation codes differ" in result.stdout
    same = invoke("compare", made.bundle, made.bundle)
    assert "what differs" not in same.stdout
    assert "and logits of the sources on" in same.stdout


def test_a_modules_code_is_not_run(invoke, made: Made, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["source"] = {"module": "antigravity:fly", "sha256": "0" * 64}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "whose code is not run" in report(invoke, bundle, made.bundle)["network"]


def test_bundles_are_compared_without_torch(process, made: Made) -> None:
    code = "import sys; sys.modules['torch'] = None"
    done = process("compare", made.bundle, made.changed_bundle, "--json", code=code)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "torch is not installed" in found["network"]
    assert found["golden"]["layers"]
    assert found["plan"]["same"]


def test_on_the_same_images(invoke, made: Made, image_folder: Path) -> None:
    found = report(invoke, made.bundle, made.checkpoint, "--data", image_folder)
    paired = found["paired"]
    assert paired["images"] == 12
    assert (paired["only_a"], paired["only_b"], paired["verdicts"]) == (0, 0, 0)
    assert paired["max_score_diff"] < 1e-5
    assert [row["generator"] for row in paired["rows"]] == ["alpha", "beta", "all"]
    result = invoke(
        *("compare", made.bundle, made.checkpoint, "--data", image_folder),
        *("--max-ap-drop", 0.001, "--max-acc-drop", 0),
    )
    assert result.exit_code == 0, result.stderr
    assert "right on what the other gets wrong: A on 0 images, B on 0 (p = 1" in result.stdout


def test_in_turn_on_this_machine(invoke, made: Made) -> None:
    found = report(invoke, made.bundle, made.changed_bundle, "--bench", "--seconds", 0.1)
    bench = found["bench"]
    assert bench["label"] == "measured"
    assert bench["a"]["times"]["median_ms"] > 0
    assert bench["ratio"]["low"] <= bench["ratio"]["median"] <= bench["ratio"]["high"]
    tight = ("--seconds", 0.1, "--max-latency-ratio", 0.000001)
    result = invoke("compare", made.bundle, made.changed_bundle, "--bench", *tight)
    assert result.exit_code == 1
    assert "misses its bar: latency: " in result.stderr
    assert "B takes " in result.stdout


def test_figures_of_devices_are_shown(invoke, made: Made, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    row = {"name": "native", "times": {"median_ms": 12.34}}
    report = {
        "manifest_sha256": hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest(),
        "bench": {"configurations": [{"threads": 4, "batch": 1, "rows": [row]}]},
    }
    (bundle / "devices").mkdir()
    (bundle / "devices/box.json").write_text(json.dumps(report))
    result = invoke("compare", made.changed_bundle, bundle)
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "box B native 4 1 12.34" in lines
    assert "measured on the devices, each at its own time" in lines
    assert not [line for line in lines if line.startswith("latency not compared")]


def test_a_missed_bar_is_a_failure_with_the_result_above_it(invoke, made: Made) -> None:
    args = ("compare", made.bundle, made.checkpoint, "--max-size-ratio", 0.1)
    result = invoke(*args, "--json")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert f"{made.checkpoint} misses its bar: size: " in result.stderr
    assert json.loads(result.stdout)["missed"][0].startswith("size: ")
    assert report(invoke, *args[1:3], "--max-size-ratio", 10)["missed"] == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--max-latency-ratio", 1), "--max-latency-ratio needs --bench"),
        (("--max-ap-drop", 0.1), "need --data"),
        (("--bench",), "--bench times bundles"),
        (("--max-size-ratio", -1), "not in the range"),
        (("--max-size-ratio", "nan"), "not a number"),
    ],
)
def test_wrong_usage(invoke, made: Made, more: tuple[object, ...], said: str) -> None:
    result = invoke("compare", made.bundle, made.checkpoint, *more)
    assert result.exit_code == 2
    assert said in result.stderr


def test_what_is_not_there_is_told(invoke, made: Made, tmp_path: Path) -> None:
    result = invoke("compare", made.bundle, tmp_path / "nothing")
    assert result.exit_code == 1
    assert "no such bundle or checkpoint, nor a built-in one" in result.stderr
    result = invoke("compare", made.bundle, made.bundle / "model.onnx")
    assert "give the bundle's folder" in result.stderr
    (tmp_path / "empty").mkdir()
    result = invoke("compare", tmp_path / "empty", made.bundle)
    assert result.exit_code == 1
    assert "manifest.json: missing" in result.stderr
