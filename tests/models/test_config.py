"""Configurations and the registry: what is accepted, what is refused and how."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qmdd.models import ARCHITECTURES, DetectorConfig, ModelError, build_detector
from qmdd.models.config import LARGEST_WIDTH, SMALLEST_WIDTH

LAYER = "stages.0.0.conv1"
LISTED = ", ".join(ARCHITECTURES)


def test_json_round_trip() -> None:
    """Every field comes back, the tuples as tuples."""
    config = DetectorConfig(
        "resnet50",
        3,
        "lsq",
        "minmax",
        slr=False,
        cqb=False,
        representation="rgb",
        width=0.3,
        layer_bits=(("stages.1.0.conv2", 8), ("stages.0.0.conv1", 2)),
        std=(0.5, 0.25, 0.125),
    )
    default = DetectorConfig()
    for field in dataclasses.fields(config):
        assert getattr(config, field.name) != getattr(default, field.name), field.name
    text = config.to_json()
    assert "\n" not in text
    assert list(json.loads(text)) == sorted(json.loads(text))
    back = DetectorConfig.from_json(text)
    assert back == config
    assert hash(back) == hash(config)
    assert back.to_json() == text
    assert DetectorConfig.from_json("{}") == default


@pytest.mark.parametrize(
    ("field", "value", "listed"),
    [
        ("arch", "resnet18", LISTED),
        ("arch", None, LISTED),
        ("bits", 5, "1, 2, 3, 4, 8, 32"),
        ("bits", 0, "1, 2, 3, 4, 8, 32"),
        ("bits", True, "1, 2, 3, 4, 8, 32"),
        ("bits", 2.0, "1, 2, 3, 4, 8, 32"),
        ("bits", "2", "1, 2, 3, 4, 8, 32"),
        ("bits", [2], "1, 2, 3, 4, 8, 32"),
        ("activation", "pact", "minmax, lsq, n2uq, binary"),
        ("activation", ["lsq"], "minmax, lsq, n2uq, binary"),
        ("weight", "ternary", "minmax, lsq, n2uq, binary"),
        ("weight", False, "minmax, lsq, n2uq, binary"),
        ("slr", 1, "True, False"),
        ("slr", None, "True, False"),
        ("cqb", 0, "True, False"),
        ("representation", "NPR", "npr, rgb"),
        ("representation", None, "npr, rgb"),
    ],
)
def test_an_unsupported_value_is_refused(field: str, value: object, listed: str) -> None:
    """The message names the field, the value and what there is; from code and from JSON alike."""
    with pytest.raises(ModelError) as caught:
        DetectorConfig(**{field: value})  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{field}={value!r} is not supported")
    assert str(caught.value).endswith(listed)
    with pytest.raises(ModelError, match=field):
        DetectorConfig.from_json(json.dumps({field: value}))


@pytest.mark.parametrize(
    "std",
    [
        (1.0, 1.0),
        (1.0, 1.0, 0.0),
        (1.0, 1.0, -1.0),
        (1.0, 1.0, float("nan")),
        (1, 1, 1),
        1.0,
        None,
        "123",
    ],
)
def test_std_must_be_three_positive_numbers(std: object) -> None:
    """Two, zero, negative, NaN, integers (JSON would change their type), and no tuple at all."""
    with pytest.raises(ModelError, match="three positive numbers"):
        DetectorConfig(std=std)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="three positive numbers"):
        DetectorConfig.from_json(json.dumps({"std": std}))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"resnet23"', '{"architecture": "resnet23"}', "[" * 100_000],
)
def test_a_configuration_that_is_none_is_refused(text: str) -> None:
    """Not JSON, not an object, an unknown key, nested beyond reason: always a ModelError."""
    with pytest.raises(ModelError, match="configuration"):
        DetectorConfig.from_json(text)


def test_an_unknown_key_is_answered_with_those_there_are() -> None:
    """So that a newer file's key is understood as such."""
    with pytest.raises(ModelError, match="'activation', 'arch', 'bits', 'cqb'"):
        DetectorConfig.from_json('{"arch": "resnet23", "bit": 2}')


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_registry_builds_by_name(arch: str) -> None:
    """In training mode, with the configuration that was asked for."""
    detector = build_detector(arch, bits=4, activation="lsq", slr=False, width=0.25)
    assert detector.training
    assert detector.config == DetectorConfig(arch, 4, "lsq", slr=False, width=0.25)


def test_the_registry_refuses_what_it_does_not_know() -> None:
    """The same errors as the configuration's."""
    with pytest.raises(ModelError, match="arch='vgg16' is not supported"):
        build_detector("vgg16")
    with pytest.raises(ModelError, match="bits=6 is not supported"):
        build_detector(bits=6)


# Quantizers by default, and which go with one bit.


@pytest.mark.parametrize("unset", [{}, {"activation": "", "weight": ""}, {"activation": None}])
@pytest.mark.parametrize(("bits", "kind"), [(1, "binary"), (2, "n2uq"), (8, "n2uq"), (32, "n2uq")])
def test_quantizers_that_are_not_named(unset: dict[str, Any], bits: int, kind: str) -> None:
    """ReActNet's at one bit, N2UQ elsewhere; and what was chosen is what a checkpoint will say."""
    config = DetectorConfig(bits=bits, **unset)
    assert (config.activation, config.weight) == (kind, kind)
    said = json.loads(config.to_json())
    assert (said["activation"], said["weight"]) == (kind, kind)


def test_one_default_leaves_the_other_choice_alone() -> None:
    """Each of the two is filled in for itself."""
    config = DetectorConfig(bits=1, activation="lsq")
    assert (config.activation, config.weight) == ("lsq", "binary")


def test_the_sign_of_what_a_relu_has_passed_says_nothing() -> None:
    """Refused for the published NPR detector's network, and not its default at one bit."""
    config = DetectorConfig("npr_resnet50", bits=1)
    assert (config.activation, config.weight) == ("n2uq", "binary")
    for bits in (1, 32):
        with pytest.raises(ModelError, match="a ReLU stands before every quantizer"):
            DetectorConfig("npr_resnet50", bits=bits, activation="binary")


@pytest.mark.parametrize("kind", ["minmax", "lsq"])
def test_weights_of_one_bit_need_two_levels_beside_zero(kind: str) -> None:
    """For the whole detector and for one layer of it."""
    with pytest.raises(ModelError, match=f"weight='{kind}' has no grid of one bit"):
        DetectorConfig(bits=1, weight=kind)
    with pytest.raises(ModelError, match=f"weight='{kind}' has no grid of one bit"):
        DetectorConfig(bits=2, weight=kind, layer_bits=((LAYER, 1),))


@pytest.mark.parametrize("field", ["activation", "weight"])
def test_binary_is_of_one_bit(field: str) -> None:
    """Not of two, nor of a layer's two; the twin keeps the name of what it is the twin of."""
    for bits, layer_bits in ((2, ()), (8, ()), (1, ((LAYER, 2),))):
        with pytest.raises(ModelError, match="is a quantizer of one bit"):
            DetectorConfig(bits=bits, layer_bits=layer_bits, **{field: "binary"})  # type: ignore[arg-type]
    assert getattr(DetectorConfig(bits=32, **{field: "binary"}), field) == "binary"  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["minmax", "lsq", "n2uq", "binary"])
@pytest.mark.parametrize("weight", ["n2uq", "binary"])
def test_what_goes_with_one_bit(activation: str, weight: str) -> None:
    """Every activation quantizer, and the weights that have a grid."""
    config = DetectorConfig(bits=1, activation=activation, weight=weight)
    assert (config.activation, config.weight) == (activation, weight)


# Mixed precision.


def test_layer_bits_are_sorted_and_looked_up() -> None:
    """However they are given, equal widths are equal configurations."""
    pairs = (("stages.1.0.conv1", 8), ("stages.0.0.conv1", 3))
    config = DetectorConfig(bits=2, layer_bits=pairs)
    assert config.layer_bits == (pairs[1], pairs[0])
    assert config == DetectorConfig(bits=2, layer_bits=(pairs[1], pairs[0]))
    assert config == DetectorConfig(bits=2, layer_bits=dict(pairs))  # type: ignore[arg-type]
    assert config.bits_of("stages.1.0.conv1") == 8
    assert config.bits_of("stages.0.0.conv1") == 3
    assert config.bits_of("stages.0.0.conv2") == 2
    assert json.loads(config.to_json())["layer_bits"] == dict(pairs)


@pytest.mark.parametrize("bits", [0, 5, 32, 2.0, True, "2", None, [2]])
def test_a_layers_width_must_be_one_with_quantizers(bits: object) -> None:
    """Among them 32: a float layer between quantised ones would not be exact."""
    says = "a layer's width is one of 1, 2, 3, 4, 8"
    with pytest.raises(ModelError, match=says):
        DetectorConfig(layer_bits=((LAYER, bits),))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=says):
        DetectorConfig.from_json(json.dumps({"layer_bits": {LAYER: bits}}))


@pytest.mark.parametrize("value", [3, None, "conv1", ("conv1", "conv2"), ((1, 2, 3),)])
def test_layer_bits_must_be_pairs(value: object) -> None:
    """Anything else is refused as such, from code and from JSON."""
    with pytest.raises(ModelError, match="layer_bits"):
        DetectorConfig(layer_bits=value)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="layer_bits must be an object"):
        DetectorConfig.from_json(json.dumps({"layer_bits": value}))


def test_a_layers_name_is_text() -> None:
    """A number is no name."""
    with pytest.raises(ModelError, match="layer_bits: 0: 2;"):
        DetectorConfig(layer_bits=((0, 2),))  # type: ignore[arg-type]


def test_the_twin_has_no_layer_bits() -> None:
    """What would they be the width of?"""
    with pytest.raises(ModelError, match="a full-precision detector has no layer_bits"):
        DetectorConfig(bits=32, layer_bits=((LAYER, 2),))


@pytest.mark.parametrize("name", ["stem", "stem.conv", "head", "stages.9.0.conv1", f"{LAYER}.conv"])
@pytest.mark.parametrize("arch", ["resnet23", "mobilenetv2"])
def test_a_layer_that_there_is_not(arch: str, name: str) -> None:
    """Named, with some of those there are; the stem has its 8 bits always."""
    with torch.device("meta"), pytest.raises(ModelError) as caught:
        build_detector(arch, width=0.125, layer_bits={name: 2})
    assert f"{arch} has no layer {name!r}; its layers are stages.0.0." in str(caught.value)


# Width.


@pytest.mark.parametrize(
    ("width", "says"),
    [
        (0.0, "must lie within"),
        (-1.0, "must lie within"),
        (0.06, "must lie within"),
        (4.01, "must lie within"),
        (float("nan"), "must lie within"),
        (float("inf"), "must lie within"),
        (10**400, "must lie within"),
        ("1", "must be a number"),
        (True, "must be a number"),
        (None, "must be a number"),
        ([1.0], "must be a number"),
    ],
)
def test_a_width_that_is_refused(width: object, says: str) -> None:
    """No channels, more than a checkpoint holds, no number; from code and from JSON."""
    with pytest.raises(ModelError, match=f"width=.* {says}"):
        DetectorConfig(width=width)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=f"width=.* {says}"):
        DetectorConfig.from_json(json.dumps({"width": width}))


@pytest.mark.parametrize("width", [0.0625, 0.3, 1, 4])
def test_a_width_that_is_kept(width: float) -> None:
    """Both ends are allowed; a whole number is the same width as a float."""
    config = DetectorConfig(width=width)
    assert type(config.width) is float
    assert config == DetectorConfig.from_json(config.to_json())
    assert config.to_json() == DetectorConfig(width=float(width)).to_json()


@given(
    width=st.floats(SMALLEST_WIDTH, LARGEST_WIDTH), count=st.integers(1, 512).map(lambda n: 4 * n)
)
def test_channels_are_the_nearest_multiple_of_four(width: float, count: int) -> None:
    """Never none; at width 1 the published count itself, whatever it is."""
    channels = DetectorConfig(width=width).channels(count)
    assert channels % 4 == 0
    assert channels == 4 or abs(channels - count * width) <= 2
    assert DetectorConfig().channels(count + 1) == count + 1


def test_a_width_at_which_channels_do_not_divide() -> None:
    """0.3 makes 40 -> 76 channels, which CQB cannot repeat; without CQB it is a network."""
    with torch.device("meta"):
        with pytest.raises(ModelError, match=r"40 channels do not divide 76; .*cqb=False"):
            build_detector("resnet23", width=0.3)
        build_detector("resnet23", width=0.3, cqb=False)
