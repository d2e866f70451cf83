"""``qmdd calibrate``, ``qmdd sensitivity``: the whole way to a verified bundle, and bad input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result

if TYPE_CHECKING:
    from qmdd.models import Detector

Invoke = Callable[..., Result]
#: No expansion, a strided block, a residual one, and none of either.
SHALLOW_MOBILE = ((1, 16, 1, 1), (6, 160, 2, 2), (6, 320, 1, 1))


@pytest.fixture(scope="module")
def latents(
    settle: Callable[[Detector], Detector], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """``latents(arch)``: a full-precision latent checkpoint at 1/8 of the width."""
    import torch

    from qmdd.calibration.train import save_detector
    from qmdd.models import build_detector

    folder = tmp_path_factory.mktemp("latents")

    def path_of(arch: str) -> Path:
        path = folder / f"{arch}.safetensors"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(1)
                save_detector(settle(build_detector(arch, 32, width=0.125)), path, {"recipe": "{}"})
        return path

    return path_of


@pytest.fixture
def latent(latents: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the ResNet-23 that a test may damage."""
    return Path(shutil.copy(latents("resnet23"), tmp_path / "full.safetensors"))


@pytest.fixture
def data(image_folder: Path, tmp_path: Path) -> Path:
    """A copy of the images that a test may damage."""
    return Path(shutil.copytree(image_folder, tmp_path / "data"))


def _json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _one_line(result: Result, said: str) -> None:
    """Exit code 1, one line on stderr that says ``said``, nothing on stdout."""
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("qmdd: error: ")
    assert said in line, line
    assert not result.stdout


@pytest.mark.parametrize("arch", ["resnet23", "mobilenetv2"])
@pytest.mark.parametrize(
    "options",
    [
        ("--bits", 8, "--method", "minmax"),
        ("--bits", 4, "--method", "mse"),
        ("--bits", 4, "--method", "minmax", "--slr"),
    ],
    ids=["minmax8", "mse4", "slr4"],
)
def test_a_calibrated_checkpoint_exports_without_a_wrong_code(
    options: tuple[object, ...],
    arch: str,
    latents: Callable[[str], Path],
    image_folder: Path,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calibrate, export, verify, each by its command; freezing the latent gives the same bytes.

    The MobileNetV2 has four blocks, each other than the rest.
    """
    monkeypatch.setattr("qmdd.models.mobilenet.SETTINGS", SHALLOW_MOBILE)
    frozen, trainable = tmp_path / "w.safetensors", tmp_path / "t.safetensors"
    source = latents(arch)
    found = _json(
        invoke(
            *("calibrate", source, "--data", image_folder, *options),
            *("-o", frozen, "--latent", trainable, "--json"),
        )
    )
    assert found["images"] == 12
    assert found["slr"] == ("--slr" in options)
    assert found["files"][str(frozen)] == frozen.stat().st_size < source.stat().st_size
    again = tmp_path / "again.safetensors"
    _json(invoke("freeze", trainable, "-o", again, "--json"))
    assert again.read_bytes() == frozen.read_bytes()
    bundle, images = tmp_path / "bundle", image_folder / "alpha"
    made = _json(
        invoke("export", "--checkpoint", frozen, "--images", images, "-o", bundle, "--json")
    )
    proof = _json(
        invoke(
            "verify", bundle, "--checkpoint", frozen, "--images", image_folder / "beta", "--json"
        )
    )
    for tier in (*made["parity"], *proof["parity"]):
        assert tier["codes_compared"] > 0
        assert tier["wrong_codes"] == 0
        assert tier["flipped_verdicts"] == 0


def test_the_same_command_gives_the_same_bytes(
    latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """And its checkpoint says how it was made; another seed, other images, other bytes."""
    from qmdd.models.checkpoint import Checkpoint

    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    for path, seed in zip(paths, (7, 7, 8), strict=True):
        options = ("--images", 6, "--seed", seed, "--method", "minmax", "-o", path)
        _json(invoke("calibrate", latent, "--data", image_folder, *options, "--json"))
    first, second, third = (path.read_bytes() for path in paths)
    assert first == second
    assert third != first
    notes = json.loads(Checkpoint(paths[0]).metadata["calibration"])
    assert (notes["method"], notes["seed"], notes["images"], notes["real"]) == ("minmax", 7, 6, 3)
    assert len(notes["data"]) == len(notes["source"]) == 64


def test_sensitivity_to_a_bundle_of_mixed_widths(
    latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """Widths for a budget, calibrated at them, exported: each layer has its own."""
    widths, figure = tmp_path / "widths.json", tmp_path / "figure.svg"
    command = ("sensitivity", latent, "--data", image_folder, "--widths", "2,8", "--budget")
    plot = ("--plot", figure) if _has_matplotlib() else ()
    found = _json(invoke(*command, 130_000, "-o", widths, *plot, "--json"))
    assert len(found["losses"]) == 2 * 21
    assert found["suggestion"]["packed_bytes"] <= 130_000
    assert json.loads(widths.read_text())["layer_bits"] == found["layer_bits"]
    assert set(found["layer_bits"].values()) == {2, 8}
    assert figure.exists() == bool(plot)
    frozen, bundle = tmp_path / "w.safetensors", tmp_path / "bundle"
    options = ("--layer-bits", widths, "--layers", "-o", frozen)
    told = invoke("calibrate", latent, "--data", image_folder, *options)
    assert told.exit_code == 0, told.output
    assert "stages.3.2.conv2" in told.stdout
    sample = image_folder / "beta"
    made = _json(
        invoke("export", "--checkpoint", frozen, "--images", sample, "-o", bundle, "--json")
    )
    assert [tier["wrong_codes"] for tier in made["parity"]] == [0, 0]
    manifest = json.loads((bundle / "manifest.json").read_text())
    text = json.dumps(manifest)
    for name, bits in found["layer_bits"].items():
        assert name in text, name
        assert bits in (2, 8)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "width = 0.125\nstatistics = 8\n[[stage]]\nbits = 8\nepochs = 1\nlr = 1e-3\n"
        "batch = 4\ncrop = 32\n"
    )
    trained = invoke(
        *("train", "--data", image_folder, "--recipe", recipe, "--layer-bits", widths),
        *("--init", latent, "--out", tmp_path / "run", "--json"),
    )
    assert trained.exit_code == 0, trained.output
    from qmdd.models.checkpoint import Checkpoint

    config = Checkpoint(tmp_path / "run" / "frozen.safetensors").config
    assert {name: config.bits_of(name) for name in found["layer_bits"]} == found["layer_bits"]


def _has_matplotlib() -> bool:
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def test_tables_for_people(
    latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """Before and after on other images; which layer loses how much."""
    output = tmp_path / "w.safetensors"
    options = ("--bits", 8, "--eval", image_folder, "-o", output)
    result = invoke("calibrate", latent, "--data", image_folder, *options)
    assert result.exit_code == 0, result.output
    for word in ("resnet23, 8 bits, mse: calibrated on 12 images", "Acc 8 bits", "alpha", "mean"):
        assert word in result.stdout
    result = invoke("sensitivity", latent, "--data", image_folder, "--widths", "4")
    assert result.exit_code == 0, result.output
    assert "in full precision" in result.stdout
    assert "stages.3.2.conv2" in result.stdout


def test_bad_images_are_left_out_only_if_asked(
    latent: Path, data: Path, invoke: Invoke, tmp_path: Path
) -> None:
    (data / "alpha" / "0_real" / "bad.png").write_text("no image")
    command = ("calibrate", latent, "--data", data, "-o", tmp_path / "w.safetensors")
    _one_line(invoke(*command), "1 image of 13 cannot be used")
    result = invoke(*command, "--skip-bad", "--json")
    assert [Path(item["path"]).name for item in _json(result)["skipped"]] == ["bad.png"]
    assert "qmdd: left out 1 image that cannot be used:" in result.stderr


def _empty(data: Path) -> None:
    shutil.rmtree(data)
    data.mkdir()


def _flat(data: Path) -> None:
    shutil.rmtree(data / "beta")
    for path in data.rglob("*.png"):
        path.rename(data / f"{path.parent.name}-{path.name}")


def _one_class(data: Path) -> None:
    for path in list(data.rglob("0_real")):
        shutil.rmtree(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_empty, "no images in the layout"),
        (_flat, "no images in the layout"),
        (_one_class, "both classes are needed"),
        (shutil.rmtree, "no such folder"),
    ],
)
@pytest.mark.parametrize("command", ["calibrate", "sensitivity"])
def test_folders_that_cannot_be_used(
    command: str,
    damage: Callable[[Path], None],
    said: str,
    latent: Path,
    data: Path,
    invoke: Invoke,
    tmp_path: Path,
) -> None:
    damage(data)
    output = ("-o", tmp_path / "w") if command == "calibrate" else ()
    _one_line(invoke(command, latent, "--data", data, *output), said)


def test_a_method_that_needs_more_images(
    latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """The layer, what it saw, what is needed; nothing is written."""
    output = tmp_path / "w.safetensors"
    command = ("calibrate", latent, "--data", image_folder, "--method", "percentile", "-o", output)
    _one_line(invoke(*command), "--method percentile needs 20,000 to mean anything")
    assert not output.exists()
    assert _json(invoke(*command, "--percentile", 99, "--json"))["percentile"] == 99


def test_checkpoints_that_cannot_be_used(
    latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """Quantised already, frozen, holding NaN, or none at all."""
    import torch

    from qmdd.calibration.train import save_detector
    from qmdd.models.checkpoint import load_checkpoint

    frozen, trainable = tmp_path / "w.safetensors", tmp_path / "t.safetensors"
    made = ("-o", frozen, "--latent", trainable, "--method", "minmax", "--json")
    _json(invoke("calibrate", latent, "--data", image_folder, *made))
    output = ("--data", image_folder, "-o", tmp_path / "x")
    _one_line(invoke("calibrate", frozen, *output), "a frozen checkpoint of 4 bits")
    _one_line(
        invoke("calibrate", trainable, *output), "give it the latent checkpoint of qmdd train"
    )
    _one_line(invoke("sensitivity", frozen, "--data", image_folder), "starts from full precision")
    detector = load_checkpoint(latent)
    with torch.no_grad():
        detector.head.fc.bias.fill_(torch.nan)
    save_detector(detector, latent, {})
    _one_line(invoke("calibrate", latent, *output), "head.fc.bias holds NaN or infinity")
    _one_line(invoke("calibrate", tmp_path / "none", *output), "no such checkpoint")


def test_places_that_cannot_be_written_to(
    latent: Path, data: Path, invoke: Invoke, tmp_path: Path
) -> None:
    """Said before any image is looked at: the data do not exist here."""
    command = ("calibrate", latent, "--data", tmp_path / "none", "-o")
    _one_line(invoke(*command, tmp_path / "no" / "w"), "no such folder; make it")
    _one_line(invoke(*command, data), "a folder; name a file with --output")
    _one_line(invoke(*command, latent, "--force"), "the checkpoint itself")
    (tmp_path / "w").write_text("kept")
    _one_line(invoke(*command, tmp_path / "w"), "exists; choose another --output or add --force")
    _one_line(invoke(*command, tmp_path / "v", "--latent", tmp_path / "w"), "another --latent")
    assert (tmp_path / "w").read_text() == "kept"
    command = ("sensitivity", latent, "--data", tmp_path / "none", "--budget", 9, "-o")
    _one_line(invoke(*command, tmp_path / "w"), "exists; choose another --output")
    _one_line(invoke(*command[:-1], "--plot", tmp_path / "no" / "f.svg"), "another --plot")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_is_closed(latent: Path, data: Path, invoke: Invoke, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    _one_line(invoke("calibrate", latent, "--data", data, "-o", closed / "w"), "may not be written")


def test_a_full_disk(
    latent: Path,
    image_folder: Path,
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, and neither the old file is harmed nor a piece of the new one left."""
    import errno

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    output = tmp_path / "w.safetensors"
    output.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    command = ("calibrate", latent, "--data", image_folder, "--method", "minmax", "-o", output)
    _one_line(invoke(*command, "--force"), "No space left on device; free some space")
    assert output.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"w.safetensors", "full.safetensors"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('{"stages.0.0.conv1": "4"}', "must be a JSON object of widths by layer"),
        ('{"stages.9.0.conv1": 4}', "has no layer 'stages.9.0.conv1'"),
        ('{"stages.0.0.conv1": 1}', "cannot be mixed with wider ones"),
    ],
)
def test_files_of_widths_that_are_none(
    text: str, said: str, latent: Path, image_folder: Path, invoke: Invoke, tmp_path: Path
) -> None:
    path = tmp_path / "widths.json"
    path.write_text(text)
    options = ("--bits", 4, "--layer-bits", path, "--method", "minmax", "-o", tmp_path / "w")
    _one_line(invoke("calibrate", latent, "--data", image_folder, *options), said)


def test_a_budget_that_is_too_small(latent: Path, image_folder: Path, invoke: Invoke) -> None:
    command = ("sensitivity", latent, "--data", image_folder, "--widths", "4", "--budget", 1000)
    _one_line(invoke(*command), "a budget of 1,000 bytes is less than the")
