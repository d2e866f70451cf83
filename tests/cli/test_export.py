"""``qmdd export`` and ``qmdd verify``: what they ask of the exporter and make of its answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from qmdd.exporter.export import ExportResult
from qmdd.runtime.files import sha256_of
from qmdd.runtime.parity import LayerResult, TierResult, VerifyResult

KEYS = {"bundle", "arch", "bits", "target", "model_bytes", "seconds", "parity"}
TIER_KEYS = {
    "tier",
    "images",
    "codes_compared",
    "wrong_codes",
    "max_abs_logit_diff",
    "flipped_verdicts",
}


def tiers(wrong: int = 0) -> list[TierResult]:
    layers = [LayerResult("stages.0.0.conv1", 1000, wrong), LayerResult("stages.0.0.conv2", 500)]
    return [TierResult(name, 3, 9.5e-7, 0, layers) for name in ("strict", "deployed")]


class Exporter:
    """Stands in for the exporter room; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.parity = tiers()
        self.raises: BaseException | None = None

    def export(self, checkpoint: Path, output: Path, **options: Any) -> ExportResult:
        self.asked = {"checkpoint": checkpoint, "output": output, **options}
        options["report"]("tracing", 1, 5)
        sys.stdout.write("a library's chatter\n")
        if self.raises:
            raise self.raises
        size = {"fp32_bytes": 63_600_000, "model_bytes": 4_120_000}
        return ExportResult(
            bundle=output,
            arch="resnet23",
            bits=2,
            target=options["target"],
            model_bytes=4_120_000,
            seconds=7.25,
            parity_seconds=1.0,
            parity=self.parity if options["verify"] else [],
            size=size,
            nodes={"Conv": 3},
            explain=["fold_stem: applied 1 times", "fold_chain: slope below 0 in stages.0"],
        )

    def verify(self, bundle: Path, **options: Any) -> VerifyResult:
        self.asked = {"bundle": bundle, **options}
        options["report"]("parity", 1, 3)
        if self.raises:
            raise self.raises
        chosen = [tier for tier in self.parity if tier.tier in options["tiers"]]
        return VerifyResult(bundle, "resnet23", 2, "onnx", 4_120_000, 3.0, chosen)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    fake = Exporter()
    monkeypatch.setattr("qmdd.exporter.export.export_bundle", fake.export)
    monkeypatch.setattr("qmdd.exporter.parity.verify_bundle", fake.verify)
    return fake


def test_export_passes_its_options_on(
    invoke, exporter: Exporter, latent: Path, image_folder: Path, tmp_path: Path
) -> None:
    result = invoke(
        *("export", "--checkpoint", latent, "--bits", 2, "--arch", "resnet23"),
        *("--images", image_folder / "alpha", "--images", image_folder / "beta" / "cat" / "0_real"),
        *("--weights", "int8", "--opset", 21, "--no-verify", "--force", "-o", tmp_path / "b"),
    )
    assert result.exit_code == 0, result.stderr
    report = exporter.asked.pop("report")
    assert callable(report)
    assert len(exporter.asked.pop("images")) == 9
    source = exporter.asked.pop("checkpoint")
    assert source.entry["checkpoint"] == latent.name
    assert source.entry["sha256"] == sha256_of(latent)
    assert exporter.asked == {
        "output": tmp_path / "b",
        "target": "onnx",
        "weights": "int8",
        "opset": 21,
        "precision": None,
        "microsoft": False,
        "verify": False,
        "force": True,
    }
    assert "not verified" in result.stdout


def test_export_resolves_its_defaults(
    invoke, exporter: Exporter, latent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmdd.models.zoo.builtin_checkpoint", lambda arch, bits: latent)
    assert invoke("export").exit_code == 0
    assert exporter.asked["checkpoint"].entry["sha256"] == sha256_of(latent)
    assert exporter.asked["output"] == Path("resnet23-w2a2-onnx")
    assert exporter.asked["images"] == []
    assert exporter.asked["weights"] is exporter.asked["opset"] is None
    assert exporter.asked["verify"] is True
    assert exporter.asked["force"] is False


def test_export_prints_a_table(invoke, exporter: Exporter, latent: Path) -> None:
    result = invoke("export", "--checkpoint", latent, "--explain")
    assert result.exit_code == 0
    for said in ("63,600,000", "4,120,000", "15.4 times", "7.2 s", "strict", "deployed", "9.5e-07"):
        assert said in result.stdout
    assert "slope below 0" in result.stdout
    assert "bundle: resnet23-w2a2-onnx" in result.stdout
    assert "chatter" not in result.stdout


def test_export_json(invoke, exporter: Exporter, latent: Path) -> None:
    result = invoke("export", "--checkpoint", latent, "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data.keys() >= KEYS
    assert data["parity"][0].keys() >= TIER_KEYS


@pytest.mark.parametrize("as_json", [True, False])
def test_missed_parity_is_a_failure(
    invoke, exporter: Exporter, latent: Path, as_json: bool
) -> None:
    exporter.parity = tiers(wrong=3)
    result = invoke("export", "--checkpoint", latent, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert "parity missed (6 of 3,000 codes wrong" in result.stderr
    assert len(result.stderr.replace("a library's chatter\n", "").splitlines()) == 1
    if as_json:
        assert json.loads(result.stdout)["parity"][0]["wrong_codes"] == 3


def test_nan_logits_are_null_and_a_failure(invoke, exporter: Exporter, latent: Path) -> None:
    exporter.parity[0].max_abs_logit_diff = float("nan")
    result = invoke("export", "--checkpoint", latent, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout, parse_constant=pytest.fail)
    assert data["parity"][0]["max_abs_logit_diff"] is None


@pytest.mark.parametrize(
    ("option", "value", "held"), [("--bits", "3", "2"), ("--arch", "resnet50", "resnet23")]
)
def test_options_that_contradict_the_checkpoint(
    invoke, exporter: Exporter, latent: Path, option: str, value: str, held: str
) -> None:
    result = invoke("export", "--checkpoint", latent, option, value)
    assert result.exit_code == 1
    assert f"{option} {value} does not fit this checkpoint, which has {held}" in result.stderr
    assert exporter.asked == {}


def test_no_such_builtin_checkpoint_names_those_there_are(
    invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qmdd.models.zoo.builtin_checkpoint", lambda arch, bits: None)
    names = [Path("resnet23-w2a2.safetensors"), Path("resnet23-w3a3.safetensors")]
    monkeypatch.setattr("qmdd.models.zoo.builtin_checkpoints", lambda: names)
    result = invoke("export", "--arch", "resnet34", "--bits", "8")
    assert result.exit_code == 1
    assert "resnet34 at 8 bits" in result.stderr
    assert "built in: resnet23-w2a2, resnet23-w3a3" in result.stderr
    assert "--checkpoint" in result.stderr


def test_unknown_target_lists_the_targets(invoke) -> None:
    result = invoke("export", "--target", "toaster")
    assert result.exit_code == 2
    assert "'toaster'" in result.stderr
    assert "onnx" in result.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ("--target", "orin-nano@5.1", "--precision", "int4"),
            "has no precision int4; it has int8",
        ),
        (("--precision", "int8"), "target onnx has no --precision"),
        (("--target", "rtx", "--weights", "int4", "--opset", "17"), "need opset 21, not 17"),
        (("--weights", "int2", "--opset", "21"), "need opset 25, not 21"),
        (("--target", "jetson-nano"), "has no INT8 arithmetic"),
    ],
)
def test_options_that_do_not_go_together(invoke, args: tuple[str, ...], says: str) -> None:
    """Wrong usage, with what does go together."""
    result = invoke("export", *args)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_missing_checkpoint(invoke, tmp_path: Path) -> None:
    result = invoke("export", "--checkpoint", tmp_path / "none.safetensors")
    assert result.exit_code == 1
    assert result.stderr.startswith("qmdd: error: ")
    assert "no such checkpoint" in result.stderr


@pytest.mark.parametrize("name", ["export", "verify"])
def test_images_that_are_none(invoke, exporter: Exporter, tmp_path: Path, name: str) -> None:
    bundle = ["bundle"] if name == "verify" else []
    result = invoke(name, *bundle, "--images", tmp_path)
    assert result.exit_code == 2
    assert f"no image found in {tmp_path}" in " ".join(result.stderr.split())


def test_interrupted_export_says_what_is_left(invoke, exporter: Exporter, latent: Path) -> None:
    exporter.raises = KeyboardInterrupt()
    result = invoke("export", "--checkpoint", latent, "-o", "b")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == (
        "qmdd: interrupted; nothing was written: b is as it was"
    )


def test_unexpected_error_is_one_line(invoke, exporter: Exporter, latent: Path) -> None:
    exporter.raises = AttributeError("'NoneType' object\nhas no attribute")
    result = invoke("export", "--checkpoint", latent)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "unexpected AttributeError" in result.stderr.splitlines()[-1]


def test_verify_passes_its_options_on(
    invoke, exporter: Exporter, latent: Path, image_folder: Path
) -> None:
    result = invoke(
        *("verify", "bundle", "--checkpoint", latent, "--images", image_folder),
        *("--tier", "deployed", "--layers"),
    )
    assert result.exit_code == 0, result.stderr
    assert len(exporter.asked["images"]) == 12
    assert exporter.asked["bundle"] == Path("bundle")
    assert exporter.asked["checkpoint"] == latent
    assert exporter.asked["tiers"] == ("deployed",)
    assert exporter.asked["threads"] is None
    assert "stages.0.0.conv2" in result.stdout
    assert "strict" not in result.stdout


def test_verify_threads_reach_both_sides(
    invoke, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", used.append)
    assert invoke("verify", "bundle", "--threads", 2).exit_code == 0
    assert exporter.asked["threads"] == 2
    assert used == [2]


def test_verify_json_and_failure(invoke, exporter: Exporter) -> None:
    result = invoke("verify", "bundle", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data.keys() >= KEYS
    assert [tier["tier"] for tier in data["parity"]] == ["strict", "deployed"]
    exporter.parity = tiers(wrong=1)
    result = invoke("verify", "bundle", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["passed"] is False
    assert "parity missed" in result.stderr


NETWORK = """
import torch
from qmdd.models import build_detector


def make():
    torch.manual_seed(0)
    return build_detector("mobilenetv2", 4, width=0.125)
"""


def test_a_module_of_ones_own(
    invoke, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exported by its factory's name and verified by it, from the folder the module lies in."""
    (tmp_path / "networks_of_mine.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "networks_of_mine", raising=False)
    images = ("--images", image_folder / "alpha" / "0_real" / "0.png")
    result = invoke("export", "--module", "networks_of_mine:make", *images, "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert (data["arch"], data["bits"], data["bundle"]) == ("make", 4, "make-w4a4-onnx")
    verified = invoke("verify", "make-w4a4-onnx", "--module", "networks_of_mine:make", *images)
    assert verified.exit_code == 0, verified.stderr
    without = invoke("verify", "make-w4a4-onnx", *images)
    assert without.exit_code == 1
    assert "name it with --module" in without.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("export", "--module", "a:b", "--bits", "2"), "--module brings its own network"),
        (("export", "--module", "a:b", "--checkpoint", "c"), "--module brings its own network"),
        (("verify", "b", "--module", "a:b", "--checkpoint", "c"), "exclude each other"),
    ],
)
def test_a_module_leaves_no_choice(invoke, args: tuple[str, ...], said: str) -> None:
    result = invoke(*args)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_full_precision_checkpoint_is_called_so(
    invoke, tiny_detector, narrow: None, image_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """Its folder's name, its line; weights have no width to choose."""
    from qmdd.calibration.train import save_detector

    monkeypatch.chdir(tmp_path)
    save_detector(tiny_detector(bits=32), tmp_path / "twin.safetensors")
    args = ("export", "--checkpoint", "twin.safetensors", "--images", image_folder / "alpha")
    result = invoke(*args)
    assert result.exit_code == 0, result.stderr
    assert "resnet23, full precision, target onnx" in result.stdout
    assert "bundle: resnet23-fp32-onnx" in result.stdout
    refused = invoke(*args, "--weights", "int8", "-o", "other")
    assert refused.exit_code == 1
    assert "no integer weights" in refused.stderr


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ((), "onnx"),
        (("--dialect", "onnx"), "onnx"),
        (("--dialect", "qonnx"), "qonnx"),
        (("--target", "openvino"), "openvino"),
        (("--target", "qonnx", "--dialect", "qonnx"), "qonnx"),
    ],
)
def test_a_dialect_is_a_target_of_its_own(
    invoke, exporter: Exporter, latent: Path, tmp_path: Path, options: tuple[str, ...], target: str
) -> None:
    result = invoke("export", "--checkpoint", latent, *options, "-o", tmp_path / "b")
    assert result.exit_code == 0, result.stderr
    assert exporter.asked["target"] == target


@pytest.mark.parametrize(
    ("target", "dialect", "says"),
    [
        ("openvino", "qonnx", "--dialect qonnx is for FPGA flows, --target openvino is not"),
        ("orin-nano", "qonnx", "leave --target out"),
        ("qonnx", "onnx", "leave --dialect out"),
    ],
)
def test_a_dialect_and_another_target_do_not_go_together(
    invoke, exporter: Exporter, target: str, dialect: str, says: str
) -> None:
    result = invoke("export", "--target", target, "--dialect", dialect)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())
    assert exporter.asked == {}


def test_operators_of_microsoft_are_for_cpus(invoke) -> None:
    """Elsewhere there is nothing that they could be put in for."""
    result = invoke("export", "--target", "openvino", "--allow-microsoft")
    assert result.exit_code == 2
    assert "leave --allow-microsoft out" in " ".join(result.stderr.split())
