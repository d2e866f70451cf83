"""Recipe files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.recipe import (
    Recipe,
    Stage,
    default_recipe,
    load_recipe,
    recipe_from_dict,
)
from qmdd.models import ARCHITECTURES, DetectorConfig

TEXT = """
arch = "resnet34"
activation = "lsq"
slr = false
seed = 7
precision = "bfloat16"
statistics = 64

[[stage]]
bits = 32
epochs = 3
lr = 1e-3

[[stage]]
bits = 3
epochs = 2
lr = 0.0005
batch = 8
crop = 64
even = true
turn = false
weight_decay = 0.0
warmup = 5
clip = 1.0
"""


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_file(tmp_path: Path) -> None:
    """Every key arrives; what is left out has its default."""
    recipe = load_recipe(_write(tmp_path / "r.toml", TEXT))
    assert recipe == Recipe(
        stages=(
            Stage(bits=32, epochs=3, lr=1e-3),
            Stage(3, 2, 5e-4, 8, 64, True, False, 0.0, 5, 1.0),
        ),
        arch="resnet34",
        activation="lsq",
        weight="",
        slr=False,
        cqb=True,
        seed=7,
        precision="bfloat16",
        statistics=64,
    )
    assert recipe.config(3) == DetectorConfig("resnet34", 3, "lsq", "n2uq", slr=False)


def test_plain_data_round_trip(tmp_path: Path) -> None:
    """Through JSON, as a run's state and a checkpoint's notes store it."""
    recipe = load_recipe(_write(tmp_path / "r.toml", TEXT))
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 32])
def test_the_default_starts_in_full_precision(arch: str, bits: int) -> None:
    """Issue: quantised training starts from the full-precision weights; the twin is one stage."""
    recipe = default_recipe(bits, arch)
    assert recipe.arch == arch
    assert [stage.bits for stage in recipe.stages] == ([32] if bits == 32 else [32, bits])


STAGE = "[[stage]]\nbits = 2\nepochs = 1\nlr = 0.001\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"at least one \[\[stage\]\]"),
        ("stage = []", r"at least one \[\[stage\]\]"),
        ("arch = ", "not a TOML recipe"),
        ("arch = 'resnet23'\narch = 'resnet34'\n", "not a TOML recipe"),
        ("learning = 1\n" + STAGE, "'learning'"),
        (STAGE + "momentum = 0.9\n", "'momentum'; a .*stage.* knows batch, bits, clip"),
        ("[[stage]]\nbits = 2\n", "missing .*'epochs' and 'lr'"),
        (STAGE.replace("bits = 2", "bits = 5"), "bits=5 is not supported"),
        (STAGE.replace("bits = 2", "bits = 2.0"), "bits=2.0 must be a whole number"),
        (STAGE.replace("epochs = 1", "epochs = 0"), "epochs must be at least 1"),
        (STAGE.replace("epochs = 1", "epochs = 'many'"), "epochs='many' must be a whole number"),
        (STAGE.replace("epochs = 1", "epochs = 1.5"), "epochs=1.5 must be a whole number"),
        (STAGE + "batch = true\n", "batch=True must be a whole number"),
        (STAGE + "turn = 1\n", "turn=1 must be true or false"),
        (STAGE + "clip = '5'\n", "clip='5' must be a number"),
        (STAGE + "clip = -1.0\n", "clip must be above 0"),
        (STAGE + "clip = inf\n", "clip must be above 0"),
        (STAGE + "warmup = -1\n", "weight_decay and warmup must not be negative"),
        (STAGE + "weight_decay = -0.1\n", "weight_decay and warmup must not be negative"),
        (STAGE + "weight_decay = nan\n", "weight_decay and warmup must not be negative"),
        ("seed = -1\n" + STAGE, "seed and statistics must not be negative"),
        ("seed = 0.5\n" + STAGE, "seed=0.5 must be a whole number"),
        ("statistics = -5\n" + STAGE, "seed and statistics must not be negative"),
        ("slr = 'yes'\n" + STAGE, "slr='yes' must be true or false"),
        (STAGE + "batch = 0\n", "batch must be at least 1"),
        (STAGE + "crop = 33\n", "crop must be even and at least 32"),
        (STAGE + "crop = 30\n", "crop must be even and at least 32"),
        (STAGE.replace("lr = 0.001", "lr = 0.0"), "lr must lie between 0 and 1"),
        (STAGE.replace("lr = 0.001", "lr = 1.0"), "lr must lie between 0 and 1"),
        (STAGE.replace("lr = 0.001", "lr = nan"), "lr must lie between 0 and 1"),
        ("arch = 'vgg'\n" + STAGE, "arch='vgg' is not supported"),
        ("precision = 'float16'\n" + STAGE, "precision must be one of float32, bfloat16"),
        ("activation = 'pact'\n" + STAGE, "activation='pact' is not supported"),
        ("stage = 3\n", "recipe: "),
        ("stage = ['bits']\n", "recipe: "),
        ("[stage]\nbits = 2\n", "recipe: "),
    ],
)
def test_a_recipe_that_is_wrong(text: str, says: str, tmp_path: Path) -> None:
    """Always a CalibrationError that names the key or the value."""
    with pytest.raises(CalibrationError, match=says):
        load_recipe(_write(tmp_path / "r.toml", text))


def test_a_recipe_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing, a folder, and bytes that are no text."""
    with pytest.raises(CalibrationError, match="cannot read the recipe: No such file"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(CalibrationError, match="cannot read the recipe: Is a directory"):
        load_recipe(tmp_path)
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="not a TOML recipe"):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    "text",
    [
        *("seed = " + "9" * 5000, "width = 0x" + "f" * 5000, "seed = 9223372036854775808"),
        *("a = " + "[" * 50_000, "a = [{b = -9223372036854775809}]", "# " + "x" * (1 << 20)),
    ],
    ids=["digits", "hexadecimal", "63 bits", "nested", "deep", "large"],
)
def test_a_recipe_that_nobody_would_write(text: str, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"r\.toml: not a (TOML )?recipe"):
        load_recipe(_write(tmp_path / "r.toml", text))


def test_a_pipe_is_no_recipe(tmp_path: Path) -> None:
    """Nor is it waited for."""
    os.mkfifo(tmp_path / "r.toml")
    with pytest.raises(CalibrationError, match="not a recipe, which is a file"):
        load_recipe(tmp_path / "r.toml")


def test_a_seed_that_torch_would_not_take() -> None:
    stage = Stage(bits=2, epochs=1, lr=1e-3)
    assert Recipe(stages=(stage,), seed=2**63 - 1)
    with pytest.raises(CalibrationError, match="seed must be at most"):
        Recipe(stages=(stage,), seed=2**63)


def test_the_recipes_of_the_project_load() -> None:
    """Every file that stands in ``calibration/recipes``."""
    import qmdd.calibration

    folder = Path(qmdd.calibration.__path__[0], "recipes")
    for path in sorted(folder.glob("*.toml")):
        assert recipe_from_dict(load_recipe(path).to_dict()) == load_recipe(path)
