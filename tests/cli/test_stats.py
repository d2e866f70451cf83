"""qmdd stats, through the command line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from qmdd.models import ARCHITECTURES, DetectorConfig
from qmdd.models.stats import parameters

SMALL = ("--side", 64)
#: A module of a user's own; it is imported from the folder where the command runs.
MODULE = """
from qmdd.models import build_detector
def network():
    return build_detector("resnet23", 2, width=0.125).eval()
"""


def loaded(result: Any) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_every_built_in_network_and_width(invoke) -> None:
    rows = loaded(invoke("stats", "--json", *SMALL))
    assert len(rows) == len(ARCHITECTURES) * 6
    assert {row["bits"] for row in rows} == {1, 2, 3, 4, 8, 32}
    for row in rows:
        assert 0 < row["ops"] <= row["multiply_adds"]
        assert row["bytes"] == sum(row["bytes_by_kind"].values())
        assert "layers" not in row


def test_one_network_layer_by_layer_beside_the_paper(invoke) -> None:
    result = invoke("stats", "--arch", "resnet23")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "resnet23, 2 bits, image of 256 pixels"
    total = next(line for line in lines if line.startswith("total"))
    assert total.split()[1:3] == ["15,911,443", "2,670,723,584"]
    assert any(line.split()[-4:] == ["0.25", "G", "5.0", "MB"] for line in lines)
    assert "Ours, 2 bits: " in result.stdout
    assert "in theory" in result.stdout


def test_other_topologies_have_no_row_in_the_paper(invoke) -> None:
    rows = loaded(invoke("stats", "--arch", "resnet23", "--bits", "2", "--no-cqb", "--json"))
    assert [row["paper"] for row in rows] == [None]
    kept = loaded(invoke("stats", "--arch", "resnet23", "--bits", "2", "--json"))
    assert kept[0]["paper"]["ops"] == 0.25e9
    assert rows[0]["elementwise"] < kept[0]["elementwise"]


def test_width_and_representation_reach_the_network(invoke) -> None:
    args = ("stats", "--arch", "mobilenetv2", "--bits", "4", "--json", *SMALL)
    whole, narrow = (loaded(invoke(*args, *more))[0] for more in ((), ("--width", "0.25")))
    assert narrow["parameters"] < whole["parameters"] / 4
    assert len(narrow["layers"]) == len(whole["layers"])


def table_of(result: Any) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_csv_is_plain_numbers(invoke) -> None:
    """The summary agrees with the layers of one of its networks."""
    rows = table_of(invoke("stats", "--bits", "2", "--csv", *SMALL))
    layers = table_of(invoke("stats", "--arch", "resnet34", "--csv", *SMALL))
    assert [row["network"] for row in rows] == list(ARCHITECTURES)
    for key in ("parameters", "multiply_adds", "bytes"):
        assert int(rows[1][key]) == sum(int(layer[key]) for layer in layers), key
    assert float(rows[1]["ops"]) == pytest.approx(sum(float(layer["ops"]) for layer in layers))


def test_layers_of_several_networks_in_words(invoke) -> None:
    lines = invoke("stats", "--bits", "32", "--layers", *SMALL).stdout.splitlines()
    titles = [line for line in lines if line.endswith("full precision, image of 64 pixels")]
    assert len(titles) == len(ARCHITECTURES)
    assert len([line for line in lines if line.startswith("total")]) == len(titles)


def bundle_at(folder: Path, config: Any) -> Path:
    """A bundle whose model is no model, which counting never opens."""
    folder.mkdir()
    data = b"not an ONNX file"
    (folder / "model.onnx").write_bytes(data)
    manifest = {
        "schema": 1,
        "arch": "resnet23",
        "bits": 2,
        "target": "onnx",
        "threshold": 0.5,
        "source": {"config": config},
        "input": {
            "name": "image",
            "dtype": "uint8",
            "layout": "NCHW",
            "color": "RGB",
            "min_side": 32,
            "multiple": 2,
            "max_side": 512,
        },
        "output": {"name": "logit", "dtype": "float32", "activation": "sigmoid"},
        "files": {"model.onnx": {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_checkpoint_and_its_file(invoke, latent: Path) -> None:
    rows = loaded(invoke("stats", "--checkpoint", latent, "--json", *SMALL))
    from qmdd.models.checkpoint import load_checkpoint

    assert rows[0]["parameters"] == parameters(load_checkpoint(latent))
    assert rows[0]["files"] == {"latent.safetensors": latent.stat().st_size}
    text = invoke("stats", "--checkpoint", latent, *SMALL).stdout
    assert f"{latent.stat().st_size:,}" in text


def test_a_bundle_and_its_files(invoke, tmp_path: Path) -> None:
    config = DetectorConfig("resnet23", 3, width=0.25, layer_bits=(("stages.0.0.conv1", 8),))
    bundle = bundle_at(tmp_path / "bundle", json.loads(config.to_json()))
    row = loaded(invoke("stats", "--bundle", bundle, "--json", *SMALL))[0]
    assert row["files"] == {"model.onnx": 16}
    assert (row["name"], row["bits"]) == ("resnet23", 3)
    assert row["layers"][1]["weight_bits"] == 8
    (bundle / "model.onnx").write_bytes(b"something altered")
    altered = invoke("stats", "--bundle", bundle)
    assert altered.exit_code == 1
    assert "model.onnx" in altered.stderr


def test_a_module(process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    done = process("stats", "--module", "mine:network", "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)[0]
    assert (row["name"], row["bits"], row["paper"]) == ("network", 2, None)
    assert row["parameters"] > 0


def test_table4(invoke) -> None:
    tables = loaded(invoke("stats", "--table4", "--json"))
    assert [table["title"] for table in tables] == ["Operations", "Storage", "Conventions"]
    assert len(tables[0]["rows"]) == len(tables[0]["notes"]) == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--checkpoint", "a", "--bundle", "b"), "give one of them"),
        (("--checkpoint", "a", "--bits", "2"), "none of the options"),
        (("--module", "a:b", "--no-slr"), "none of the options"),
        (("--json", "--csv"), "exclude each other"),
        (("--table4", "--arch", "resnet23"), "leave the other options"),
        (("--table4", "--csv"), "leave the other options"),
        (("--side", "8"), "32<=x<=4096"),
        (("--arch", "vgg"), "vgg"),
    ],
)
def test_wrong_usage(invoke, args: tuple[str, ...], message: str) -> None:
    result = invoke("stats", *args)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--checkpoint", "none.safetensors"), "none.safetensors: no such checkpoint"),
        (("--bundle", "none"), "none: no such bundle"),
        (("--module", "none:make"), "cannot be imported"),
        (("--arch", "resnet23", "--bits", "1", "--weight", "lsq"), "no grid of one bit"),
    ],
)
def test_failures_are_one_line(invoke, args: tuple[str, ...], message: str) -> None:
    result = invoke("stats", *args)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_bundle_of_a_module_says_what_to_do(invoke, tmp_path: Path) -> None:
    result = invoke("stats", "--bundle", bundle_at(tmp_path / "bundle", None))
    assert result.exit_code == 1
    assert "with --module" in result.stderr
