"""``qmdd train`` and ``qmdd freeze``, with the real rooms behind them and a tiny detector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

RECIPE = """
statistics = 8
seed = 3
[[stage]]
bits = 32
epochs = 1
lr = 1e-3
batch = 4
crop = 32
[[stage]]
bits = 2
epochs = 1
lr = 1e-3
batch = 4
crop = 32
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def train(invoke, narrow: None, recipe: Path, image_folder: Path, tmp_path: Path):
    base = ("train", "--data", image_folder, "--recipe", recipe, "--out", tmp_path / "run")
    return lambda *args: invoke(*base, *args)


def test_train_writes_what_export_needs(train, image_folder: Path, tmp_path: Path) -> None:
    from qmdd.models.checkpoint import FROZEN, LATENT, Checkpoint
    from qmdd.runtime.folder import digest, scan

    result = train("--eval", image_folder)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    run = tmp_path / "run"
    assert Checkpoint(run / "latent.safetensors").form == LATENT
    frozen = Checkpoint(run / "frozen.safetensors")
    assert frozen.form == FROZEN
    assert frozen.config.bits == 2
    written = json.loads((run / "recipe.json").read_text())
    assert json.loads(frozen.metadata["recipe"]) == written
    assert written["seed"] == 3
    for name in ("latent.safetensors", "frozen.safetensors"):
        metadata = Checkpoint(run / name).metadata
        assert json.loads(metadata["generators"]) == ["alpha", "beta"]
        assert metadata["data"] == digest(image_folder, scan(image_folder))
    assert "seen in training, by the detector's own record: alpha, beta" in result.stdout
    for said in ("resnet23, 2 bits", "frozen.safetensors", "alpha", "beta", "mean", "AP"):
        assert said in result.stdout


def test_train_json_and_overrides(train, image_folder: Path, tmp_path: Path) -> None:
    result = train("--json", "--seed", 9, "--epochs", 2, "--eval", image_folder, "--threads", 1)
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data.keys() == {"out", "arch", "bits", "seconds", "files", "metrics", "means"}
    assert data["files"].keys() == {"latent.safetensors", "frozen.safetensors", "recipe.json"}
    assert data["metrics"]["alpha"].keys() >= {"images", "acc", "ap"}
    written = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert written["seed"] == 9
    assert [stage["epochs"] for stage in written["stages"]] == [2, 2]


def test_train_and_eval_print_the_same(train, invoke, image_folder: Path, tmp_path: Path) -> None:
    """``qmdd eval`` of the frozen checkpoint repeats the table that training ended with."""
    told = train("--eval", image_folder).stdout.split("generator", 1)[1]
    result = invoke("eval", tmp_path / "run" / "frozen.safetensors", "--data", image_folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.split("\n\n", 1)[1].split("generator", 1)[1] == told


def test_what_the_start_had_seen_is_seen_too(
    train, invoke, recipe: Path, image_folder: Path, tmp_path: Path
) -> None:
    """A run that starts from another's weights: both runs' generators are in its record."""
    from qmdd.models.checkpoint import Checkpoint

    assert train().exit_code == 0
    shutil.copytree(image_folder / "alpha", tmp_path / "more" / "gamma")
    recipe.write_text(RECIPE.replace("batch = 4", "batch = 2"))
    result = invoke(
        *("train", "--data", tmp_path / "more", "--recipe", recipe, "--out", tmp_path / "next"),
        *("--init", tmp_path / "run" / "latent.safetensors"),
    )
    assert result.exit_code == 0, result.stderr
    frozen = Checkpoint(tmp_path / "next" / "frozen.safetensors")
    assert json.loads(frozen.metadata["generators"]) == ["alpha", "beta", "gamma"]


def test_held_out_images_are_looked_at_before_training(train, image_folder: Path, tmp_path) -> None:
    held_out = Path(shutil.copytree(image_folder, tmp_path / "held-out"))
    (held_out / "alpha/0_real/1.png").write_bytes(b"no image")
    result = train("--eval", held_out)
    assert result.exit_code == 1
    assert "1 image of 12 cannot be used" in result.stderr
    assert not (tmp_path / "run").exists()


def test_interrupted_training_resumes_to_the_same_weights(
    train, invoke, recipe: Path, image_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    from qmdd.calibration import train as room

    assert train().exit_code == 0
    whole = (tmp_path / "run" / "latent.safetensors").read_bytes()

    steps = 0
    batch = room.Batches.get

    def interrupt(self, number: int):
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt
        return batch(self, number)

    base = ("train", "--data", image_folder, "--recipe", recipe, "--out", tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(room.Batches, "get", interrupt)
        result = invoke(*base, "--save-every", 1)
    assert result.exit_code == 130
    assert "the last saved state is in" in result.stderr
    assert "the same command goes on from there" in result.stderr
    assert not (tmp_path / "again" / "latent.safetensors").exists()

    assert invoke(*base, "--save-every", 1).exit_code == 0
    assert (tmp_path / "again" / "latent.safetensors").read_bytes() == whole


def test_interrupted_before_the_first_state(train, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("qmdd.calibration.train.Trainer.run", interrupt)
    result = train()
    assert result.exit_code == 130
    assert "no state had been saved yet" in result.stderr


def test_another_recipe_in_the_same_folder(train) -> None:
    assert train().exit_code == 0
    result = train("--seed", 4)
    assert result.exit_code == 1
    assert "choose another folder" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--data", "none"], "no such folder"),
        (["--data", "{images}", "--recipe", "lost"], "no recipe 'lost'"),
        (["--data", "{images}", "--eval", "none"], "none: no such folder"),
        (["--data", "{images}", "--init", "none"], "none: no such checkpoint"),
    ],
)
def test_bad_input(
    invoke, narrow: None, image_folder: Path, tmp_path: Path, args: list[str], said: str
) -> None:
    filled = [arg.format(images=image_folder) for arg in args]
    result = invoke("train", *filled, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_builtin_recipes_are_found_by_name(
    invoke, narrow: None, image_folder: Path, tmp_path: Path, monkeypatch, recipe: Path
) -> None:
    from qmdd.cli import train as command

    monkeypatch.setattr(command, "_recipes", lambda: {"tiny": recipe})
    assert "tiny" in invoke("train", "--help").stdout
    out = tmp_path / "named"
    result = invoke("train", "--data", image_folder, "--recipe", "tiny", "--out", out)
    assert result.exit_code == 0, result.stderr


def test_every_builtin_recipe_can_be_read() -> None:
    from qmdd.calibration.recipe import load_recipe
    from qmdd.cli.train import _recipes

    for path in _recipes().values():
        load_recipe(path)


def test_no_cuda_device(train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = train("--device", "cuda")
    assert result.exit_code == 1
    assert "--device cpu" in result.stderr


def test_freeze(invoke, latent: Path, tmp_path: Path) -> None:
    import torch

    from qmdd.models.checkpoint import Checkpoint

    out = tmp_path / "frozen.safetensors"
    result = invoke("freeze", latent, "-o", out, "--json")
    assert result.exit_code == 0, result.stderr
    data = json.loads(result.stdout)
    assert data["checkpoint"] == str(out)
    assert data["frozen_bytes"] == out.stat().st_size < data["latent_bytes"] / 4
    frozen = Checkpoint(out)
    assert frozen.metadata["recipe"] == "{}"
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(frozen.detector()(images), Checkpoint(latent).detector()(images))
    text = invoke("freeze", latent, "-o", out, "--force").stdout
    assert f"{out.stat().st_size:,} bytes" in text


def test_freeze_refuses(invoke, latent: Path, tmp_path: Path) -> None:
    out = tmp_path / "frozen.safetensors"
    assert invoke("freeze", latent, "-o", out).exit_code == 0
    before = out.read_bytes(), latent.read_bytes()
    for args, said in (
        ((latent, "-o", out), "add --force"),
        ((latent, "-o", latent, "--force"), "the latent checkpoint itself"),
        ((latent, "-o", tmp_path, "--force"), "a folder"),
        ((latent, "-o", tmp_path / "no" / "x"), "no such folder"),
        ((out, "-o", tmp_path / "x"), "frozen already"),
        ((tmp_path / "none", "-o", tmp_path / "x"), "no such checkpoint"),
    ):
        result = invoke("freeze", *args)
        assert result.exit_code == 1
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert before == (out.read_bytes(), latent.read_bytes())


def test_topology_options_reach_the_checkpoint(train, tmp_path: Path) -> None:
    """In place of the recipe's; the checkpoint's configuration says so."""
    from qmdd.models.checkpoint import Checkpoint

    result = train(
        *("--representation", "rgb", "--no-cqb", "--no-slr", "--activation", "lsq"),
        *("--weight", "minmax", "--width", 0.5),
    )
    assert result.exit_code == 0, result.stderr
    config = Checkpoint(tmp_path / "run" / "frozen.safetensors").config
    assert (config.representation, config.cqb, config.slr) == ("rgb", False, False)
    assert (config.activation, config.weight, config.width) == ("lsq", "minmax", 0.5)


def test_a_recipe_that_starts_from_another(
    invoke, narrow: None, image_folder: Path, tmp_path: Path, monkeypatch, recipe: Path
) -> None:
    """Not trained yet: what to do; trained: its latent weights are found in runs/."""
    from qmdd.cli import train as command

    second = tmp_path / "second.toml"
    text = RECIPE.replace("seed = 3\n", 'seed = 3\nstart = "first"\n')
    second.write_text(text.replace("[[stage]]\nbits = 32", "[[stage]]\nbits = 4", 1))
    monkeypatch.setattr(command, "_recipes", lambda: {"first": recipe, "second": second})
    monkeypatch.chdir(tmp_path)
    args = ("train", "--data", image_folder, "--recipe")
    refused = invoke(*args, "second")
    assert refused.exit_code == 1
    assert "starts from the weights of first" in refused.stderr
    assert "qmdd train --recipe first" in refused.stderr
    assert invoke(*args, "first").exit_code == 0
    assert (tmp_path / "runs" / "first" / "latent.safetensors").exists()
    result = invoke(*args, "second")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs" / "second" / "frozen.safetensors").exists()
