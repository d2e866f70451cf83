"""Files of widths: written and read back, and what is none; recipes that hold widths."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.calibration.errors import CalibrationError
from qmdd.calibration.layer_bits import layer_bits_bytes, load_layer_bits
from qmdd.calibration.recipe import default_recipe, load_recipe, recipe_from_dict


@given(widths=st.dictionaries(st.text(max_size=9), st.sampled_from([2, 3, 4, 8]), max_size=5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, widths: object) -> None:
    """By itself and under its key: sorted pairs."""
    assert isinstance(widths, dict)
    path = tmp_path_factory.mktemp("widths") / "w.json"
    path.write_bytes(layer_bits_bytes(widths))
    assert load_layer_bits(path) == tuple(sorted(widths.items()))
    if "layer_bits" not in widths:
        path.write_text(json.dumps(widths))
        assert load_layer_bits(path) == tuple(sorted(widths.items()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "must be a JSON object of widths"),
        ('{"a": 4.0}', "must be a JSON object of widths"),
        ('{"a": true}', "must be a JSON object of widths"),
        ('{"layer_bits": null}', "run it with --budget"),
        (" " * (1 << 21), "at most 1 MiB"),
    ],
)
def test_what_is_no_file_of_widths(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=said):
        load_layer_bits(path)


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="No such file"):
        load_layer_bits(tmp_path / "none.json")
    with pytest.raises(CalibrationError, match="not a file of widths"):
        load_layer_bits(tmp_path)


def test_a_recipe_with_widths(tmp_path: Path) -> None:
    """From TOML, through what is stored with a run; full-precision stages have none."""
    path = tmp_path / "r.toml"
    path.write_text(
        "[[stage]]\nbits = 32\nepochs = 1\nlr = 0.1\n[[stage]]\nbits = 4\nepochs = 1\nlr = 0.1\n"
        '[layer_bits]\n"stages.0.0.conv1" = 8\n'
    )
    recipe = load_recipe(path)
    assert recipe.layer_bits == (("stages.0.0.conv1", 8),)
    assert recipe.config(4).bits_of("stages.0.0.conv1") == 8
    assert recipe.config(32).layer_bits == ()
    assert recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_a_recipe_without_widths_is_stored_as_ever() -> None:
    """So that a run begun before there were any still resumes."""
    assert "layer_bits" not in default_recipe(2).to_dict()


def test_a_recipe_with_wrong_widths() -> None:
    stage = {"bits": 4, "epochs": 1, "lr": 0.1}
    with pytest.raises(CalibrationError, match="must be a table of widths"):
        recipe_from_dict({"stage": [stage], "layer_bits": 4})
    with pytest.raises(CalibrationError, match="a layer's width is one of"):
        dataclasses.replace(default_recipe(4), layer_bits=(("stages.0.0.conv1", 5),))
