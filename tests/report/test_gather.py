"""What is gathered: numbers against their definitions, with the source and without it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qmdd.exporter.errors import ParityError, ReportError
from qmdd.exporter.parity import source_outputs
from qmdd.exporter.report.gather import Asked, Gathered, gather
from qmdd.exporter.report.images import MOST
from qmdd.exporter.report.speed import read_bench
from qmdd.models import quantised_chains
from qmdd.models.checkpoint import load_checkpoint
from qmdd.runtime.bundle import MANIFEST, Bundle
from qmdd.runtime.files import sha256_of
from qmdd.runtime.golden import read_golden
from qmdd.runtime.images import load_rgb

Changed = Callable[[Callable[[dict[str, Any]], None]], Path]


def _answers(data: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {line["question"]: (line["state"], line["answer"]) for line in data["verdict"]}


def test_quantizers_saw_what_the_source_computes(
    gathered: Gathered, checkpoint: Path, images: list[Path]
) -> None:
    network = load_checkpoint(checkpoint).eval()
    pixels = np.stack([load_rgb(path).transpose(2, 0, 1) for path in images])
    logits, codes = source_outputs(network, pixels)
    layers = {layer["layer"]: layer for layer in gathered.data["quantizers"]["layers"]}
    assert list(layers) == [name for name, _ in quantised_chains(network)]
    for name, layer in layers.items():
        counts = np.bincount(codes[name].reshape(-1), minlength=4)
        assert layer["shares"] == pytest.approx(counts / counts.sum())
        assert layer["before"]["total"] == counts.sum()
        inside = sum(layer["before"]["counts"]) / counts.sum()
        assert layer["before"]["outside"] == pytest.approx(1 - inside)
        assert layer["table"] == sorted(layer["table"])
    scores = [image["source"] for image in gathered.data["images"]["shown"]]
    assert scores == pytest.approx(1 / (1 + np.exp(-logits.astype(np.float64))))
    ran_here = [image["bundle"] for image in gathered.data["images"]["shown"]]
    assert ran_here == pytest.approx(scores, abs=1e-5)


def test_folded_tables_give_the_same_codes(gathered: Gathered) -> None:
    layers = gathered.data["quantizers"]["layers"]
    assert all(layer["after"]["differ"] == 0 for layer in layers)
    assert all(layer["after"]["compared"] == layer["before"]["total"] for layer in layers)
    partly = {layer["layer"]: layer["after"] for layer in layers}["stages.1.0.conv1"]
    assert (partly["taken"], partly["left"]) == ("shift", "shift, PReLU")
    # As the exporter says of the graph.
    notes = gathered.data["provenance"]["notes"]
    assert [note.split(": ")[1] for note in notes if note.startswith("fold_chain")] == [
        layer["layer"] for layer in layers if layer["after"]["left"]
    ]


def test_a_wrong_folded_table_is_seen(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, images: list[Path]
) -> None:
    from qmdd.exporter.report import look as room

    real = room.folding

    def shifted(name: str, chain: Any) -> Any:
        found = real(name, chain)
        return found._replace(folded=found.folded + np.float32(0.05))

    monkeypatch.setattr(room, "folding", shifted)
    pixels = [np.ascontiguousarray(load_rgb(images[0]).transpose(2, 0, 1))]
    _, layers = room.look(load_checkpoint(checkpoint).eval(), pixels)
    assert all(layer["after"]["differ"] > 0 for layer in layers)


def test_looking_leaves_no_hook(checkpoint: Path, images: list[Path]) -> None:
    from qmdd.exporter.report.look import look

    network = load_checkpoint(checkpoint).eval()
    pixels = np.ascontiguousarray(load_rgb(images[0]).transpose(2, 0, 1))
    look(network, [pixels])
    assert not any(chain._forward_hooks for _, chain in quantised_chains(network))
    with torch.no_grad():
        quantised_chains(network)[0][1].shift_in.bias.fill_(float("nan"))
    with pytest.raises(ReportError, match=r"stages\.0\.0\.conv1: NaN or infinity"):
        look(network, [pixels])
    assert not any(chain._forward_hooks for _, chain in quantised_chains(network))


def test_weight_codes_are_counted(gathered: Gathered, checkpoint: Path) -> None:
    network = load_checkpoint(checkpoint).eval()
    for layer in gathered.data["weights"]["layers"]:
        codes = network.get_submodule(layer["layer"]).frozen().codes
        assert layer["weights"] == codes.numel() == sum(layer["counts"])
        assert layer["counts"] == [int((codes == code).sum()) for code in layer["codes"]]


def test_verdict(gathered: Gathered) -> None:
    assert _answers(gathered.data) == {
        "Exact?": ("yes", "yes, code by code"),
        "Built?": ("open", "needs no engine"),
        "Run?": ("yes", "yes"),
        "Measured?": ("open", "no"),
    }


@pytest.mark.parametrize(
    "how",
    [
        lambda tier: tier["layers"][0].update(wrong=1),
        lambda tier: tier.update(flipped_verdicts=1),
        lambda tier: tier.update(max_abs_logit_diff=None),
        lambda tier: tier.update(max_abs_logit_diff=1.0, logit_bar=2.0, passed=True),
        lambda tier: tier.update(layers=[], codes_compared=7),
        lambda tier: tier.update(images=0),
        lambda tier: tier.update(layers="none"),
        lambda tier: tier.pop("flipped_verdicts"),
        lambda tier: tier.update(fallbacks=["stages.0.0.conv1 runs in float32"]),
    ],
)
def test_a_miss_is_no_exact_bundle(changed: Changed, how: Callable[[dict[str, Any]], None]) -> None:
    data = gather(changed(lambda m: how(m["parity"][0])), Asked(golden=True, threads=1)).data
    assert _answers(data)["Exact?"] == ("no", "no")


def test_from_the_bundle_alone(bundle: Path) -> None:
    data = gather(bundle, Asked(golden=True, threads=1)).data
    golden = read_golden(bundle / "parity" / "golden.safetensors")
    layers = data["quantizers"]["golden"]
    assert [layer["layer"] for layer in layers] == golden.layers
    first = np.concatenate([codes[golden.layers[0]].reshape(-1) for codes in golden.codes])
    assert layers[0]["shares"] == pytest.approx(np.bincount(first) / first.size)
    assert [image["source"] for image in data["images"]["shown"]] == pytest.approx(
        1 / (1 + np.exp(-golden.logits.astype(np.float64)))
    )
    assert _answers(data)["Exact?"] == ("yes", "yes, code by code")
    assert data["quantizers"]["layers"] == data["weights"]["layers"] == []
    assert data["left_out"][0] == "The source network: left out with --golden."


def test_without_torch_and_onnx(bundle: Path, tmp_path: Path) -> None:
    """What a device has is enough for a report of what the bundle holds."""
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnx_graphsurgeon'): sys.modules[name] = None\n"
        "import importlib.util as util\n"
        "real = util.find_spec\n"
        "util.find_spec = lambda n, *a: None if n in sys.modules and sys.modules[n] is None "
        "else real(n, *a)\n"
        "from qmdd.cli.main import main\nmain()"
    )
    page = tmp_path / "report.html"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(bundle), "-o", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "torch is not installed here" in page.read_text(encoding="utf-8")
    assert "yes, code by code" in done.stdout


def test_without_a_runtime_for_it(changed: Changed) -> None:
    found = gather(changed(lambda m: m.update(runtime="qonnx")), Asked(golden=True)).data
    assert found["parity"]["here"] is None
    assert _answers(found)["Run?"] == ("open", "not run")
    assert all(image["bundle"] is None for image in found["images"]["shown"])


def test_nothing_compared(changed: Changed) -> None:
    def forget(manifest: dict[str, Any]) -> None:
        manifest["parity"] = []
        for name in ("parity/golden.safetensors", "parity/probes.pb"):
            del manifest["files"][name]

    found = gather(changed(forget), Asked(golden=True)).data
    assert _answers(found)["Exact?"] == ("open", "not compared")
    assert found["images"]["shown"] == []


def test_another_source_is_refused(bundle: Path, tmp_path: Path, tiny_detector: Any) -> None:
    from qmdd.calibration.train import save_detector

    save_detector(tiny_detector(), tmp_path / "other.safetensors", {})
    with pytest.raises(ParityError, match="not the checkpoint"):
        gather(bundle, Asked(checkpoint=tmp_path / "other.safetensors"))


def test_of_many_images_a_few_are_shown(bundle: Path, images: list[Path]) -> None:
    found = gather(bundle, Asked(golden=True, images=images * 5, threads=1))
    assert len(found.data["images"]["shown"]) == MOST
    assert found.data["images"]["origin"] == f"{MOST} of 15 images given"


def _bench(bundle: Path) -> dict[str, Any]:
    opened = Bundle.open(bundle)
    times = {"median_ms": 2.0, "p99_ms": 3.0, "images_per_second": 500.0}
    ours = {
        "name": "onnxruntime",
        "times": times,
        "ratio": {"median": 0.5, "low": 0.4, "high": 0.6},
    }
    twin = {"name": "twin", "times": {**times, "median_ms": 4.0}, "ratio": None}
    return {
        "schema": 1,
        "arch": opened.arch,
        "bits": opened.bits,
        "target": opened.target,
        "model_bytes": opened.model_bytes,
        "machine": {"processor": "A processor", "cores": 2, "system": "Linux x86_64"},
        "inputs": {"height": 64, "width": 64},
        "no_twin": "",
        "configurations": [{"threads": 1, "batch": 1, "rows": [ours, twin]}],
    }


def test_a_benchmark_is_read(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(_bench(bundle)), encoding="utf-8")
    data = gather(bundle, Asked(golden=True, bench_json=path, threads=1)).data
    rows = data["speed"]["bench"]["rows"]
    assert [(row["name"], row["median_ms"], row["twin"]) for row in rows] == [
        ("onnxruntime", 2.0, False),
        ("twin", 4.0, True),
    ]
    line = next(line for line in data["verdict"] if line["question"] == "Measured?")
    assert line["answer"] == "yes"
    assert "2.00 ms a run (median), 1 thread, 0.50 of the full-precision twin" in line["detail"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[1]", "must hold a JSON object"),
        ("[" * 100_000, "not JSON"),
        ("{}", "not a result of qmdd bench"),
        (" " * (5 << 20), "larger than 4 MiB"),
        (None, "cannot be read"),
        ("other", "measured on another bundle"),
    ],
)
def test_files_that_are_no_benchmark(
    bundle: Path, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "bench.json"
    if text == "other":
        text = json.dumps({**_bench(bundle), "bits": 4})
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ReportError, match=said):
        read_bench(path, Bundle.open(bundle))


def test_devices(bundle: Path, changed: Changed) -> None:
    copy = changed(lambda _manifest: None)
    parity = json.loads((bundle / MANIFEST).read_bytes())["parity"]
    report = {
        "schema": 1,
        "host": {"destination": "edge@jetson", "folder": "qmdd", "port": None},
        "state": "deployed",
        "time": "2026-01-02T03:04:05Z",
        "manifest_sha256": sha256_of(copy / MANIFEST),
        "verify": {"parity": parity},
        "bench": _bench(bundle),
        "facts": {"jetson": {"model": "A Jetson"}},
    }
    wrong = json.loads(json.dumps(report))
    wrong["verify"]["parity"][0]["layers"][0]["wrong"] = 3
    (copy / "devices").mkdir()
    for name, plain in (("a", report), ("b", wrong), ("c", {**report, "manifest_sha256": "0"})):
        (copy / "devices" / f"{name}.json").write_text(json.dumps(plain), encoding="utf-8")
    (copy / "devices" / "d.json").write_text("no JSON", encoding="utf-8")
    data = gather(copy, Asked(golden=True, threads=1)).data
    told = data["speed"]["devices"]
    assert [(d["machine"], d["passed"], d["same"]) for d in told] == [
        ("A Jetson", True, True),
        ("A Jetson", False, True),
        ("A Jetson", True, False),
    ]
    assert len(data["speed"]["notes"]) == 1
    run = next(line for line in data["verdict"] if line["question"] == "Run?")
    assert "Verified on 1 of 3 devices that reported." in run["detail"]


def test_an_engine_reports_with_its_own_budget() -> None:
    """Codes of an engine may differ within a share; anything else may not."""
    from qmdd.exporter.report.proof import on_device
    from qmdd.runtime.device.facts import Facts

    tier = {
        "tier": "codes",
        "runtime": "tensorrt",
        "images": 2,
        "max_abs_logit_diff": 1e-3,
        "logit_bar": 1e-2,
        "code_budget": 0.01,
        "flipped_verdicts": 0,
        "layers": [{"layer": "a", "codes": 1000, "wrong": 10}],
    }
    assert on_device(Facts(tier), quantized=True).passed
    assert not on_device(Facts({**tier, "code_budget": 0.009}), quantized=True).passed
    assert not on_device(Facts({**tier, "runtime": "onnxruntime"}), quantized=True).passed


def test_the_export_command_names_what_was_chosen(changed: Changed) -> None:
    usual = gather(changed(lambda _m: None), Asked(golden=True, threads=1)).data
    command = usual["provenance"]["commands"][0]["command"]
    assert command == "qmdd export --checkpoint latent.safetensors --target onnx -o BUNDLE"


def test_a_choice_is_named(changed: Changed) -> None:
    copy = changed(lambda m: m.update(weights="int8", opset=17))
    command = gather(copy, Asked(golden=True, threads=1)).data["provenance"]["commands"][0]
    assert command["command"].endswith("--target onnx --weights int8 --opset 17 -o BUNDLE")


@pytest.mark.parametrize(
    ("arch", "bits", "options"),
    [
        ("resnet23", 1, {"activation": "binary", "weight": "binary", "slr": False}),
        ("resnet23", 8, {"activation": "lsq", "weight": "lsq", "slr": False, "cqb": False}),
        ("resnet23", 3, {"activation": "minmax", "weight": "minmax", "slr": False}),
        ("resnet23", 2, {"activation": "minmax", "representation": "rgb"}),
        ("n2uq_resnet18", 2, {}),
        ("mobilenetv2", 4, {}),
    ],
)
def test_every_kind_of_network_can_be_looked_at(
    settle: Any, arch: str, bits: int, options: dict[str, Any]
) -> None:
    from qmdd.exporter.report.look import look, weight_codes
    from qmdd.exporter.report.plots import channels_plot, step_plot
    from qmdd.exporter.report.two_paths import two_paths
    from qmdd.models import CQB, build_detector

    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = settle(build_detector(arch, bits, width=1 / 8, **options))
    image = np.random.default_rng(3).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    logits, layers = look(network, [image])
    assert logits == source_outputs(network, image[np.newaxis])[0].tolist()
    assert len(layers) == len(quantised_chains(network))
    for layer in layers:
        assert step_plot("plot", layer["before"], layer["table"])
        if layer["after"]:
            assert layer["after"]["differ"] == 0
            assert channels_plot("plot", layer["after"], len(layer["table"]))
    assert {row["bits"] for row in weight_codes(network)} == {8, bits}
    connected = [m for m in network.modules() if isinstance(m, CQB) and m.alpha is not None]
    assert len(two_paths(network, image)[0]) == len(connected)
