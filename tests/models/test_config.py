"""Configurations and the registry: what is accepted, what is refused and how."""

from __future__ import annotations

import json

import pytest

from qmdd.models import ARCHITECTURES, DetectorConfig, ModelError, build_detector


def test_json_round_trip() -> None:
    """Every field comes back, the tuple as a tuple."""
    config = DetectorConfig(
        "resnet50", 3, "lsq", "minmax", slr=False, cqb=False, std=(0.5, 0.25, 0.125)
    )
    text = config.to_json()
    assert "\n" not in text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert DetectorConfig.from_json(text) == config
    assert DetectorConfig.from_json("{}") == DetectorConfig()


@pytest.mark.parametrize(
    ("field", "value", "listed"),
    [
        ("arch", "resnet18", "resnet23, resnet34, resnet50"),
        ("arch", None, "resnet23, resnet34, resnet50"),
        ("bits", 5, "2, 3, 4, 8, 32"),
        ("bits", 1, "2, 3, 4, 8, 32"),
        ("bits", True, "2, 3, 4, 8, 32"),
        ("bits", 2.0, "2, 3, 4, 8, 32"),
        ("bits", "2", "2, 3, 4, 8, 32"),
        ("bits", [2], "2, 3, 4, 8, 32"),
        ("activation", "pact", "minmax, lsq, n2uq"),
        ("weight", "binary", "minmax, lsq, n2uq"),
        ("slr", 1, "True, False"),
        ("slr", None, "True, False"),
        ("cqb", 0, "True, False"),
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
    [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, -1.0), (1.0, 1.0, float("nan")), (1, 1, 1)],
)
def test_std_must_be_three_positive_numbers(std: tuple[float, ...]) -> None:
    """Two, zero, negative, NaN, and integers (JSON would change their type)."""
    with pytest.raises(ModelError, match="three positive numbers"):
        DetectorConfig(std=std)  # type: ignore[arg-type]


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
    detector = build_detector(arch, bits=4, activation="lsq", slr=False)
    assert detector.training
    assert detector.config == DetectorConfig(arch, 4, "lsq", slr=False)


def test_the_registry_refuses_what_it_does_not_know() -> None:
    """The same errors as the configuration's."""
    with pytest.raises(ModelError, match="arch='vgg16' is not supported"):
        build_detector("vgg16")
    with pytest.raises(ModelError, match="bits=6 is not supported"):
        build_detector(bits=6)
