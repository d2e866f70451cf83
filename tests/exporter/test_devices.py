"""The table of devices: every number has a source, and gives the figures that vendors quote."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qmdd.exporter.devices import DEVICES, PRECISIONS, Device, Fact, Mode, find_device
from qmdd.exporter.errors import ExportError
from qmdd.exporter.targets import TARGETS

MODES = [(device, mode) for device in DEVICES.values() for mode in device.modes]


def _facts(device: Device) -> Iterator[tuple[str, Fact]]:
    yield "multiprocessors", device.multiprocessors
    yield "memory", device.memory_gb
    yield "cache", device.cache_mib
    yield from device.architecture.per_clock.items()
    for mode in device.modes:
        yield f"{mode.name} clock", mode.clock_mhz
        yield f"{mode.name} bandwidth", mode.bandwidth
        yield from mode.quoted.items()


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
def test_every_number_has_a_source(device: Device) -> None:
    for name, fact in _facts(device):
        assert fact.value > 0, name
        named = ("https://", "http://", "derived: ", "1866 MHz x ")
        assert any(word in fact.source for word in named), f"{name}: {fact.source!r}"
        assert type(fact.checked) is bool


def test_every_device_of_a_target_is_there_and_no_other() -> None:
    wanted = {target.device for target in TARGETS.values() if target.device}
    assert wanted == set(DEVICES)
    for name, device in DEVICES.items():
        assert device.name == name
        assert find_device(name) is device


def test_memory_is_the_target_s() -> None:
    """Counted in GB here and in GiB there, as the vendors' names are."""
    for target in TARGETS.values():
        if target.device and target.memory_gib:
            assert DEVICES[target.device].memory_gb.value == target.memory_gib, target.name


@pytest.mark.parametrize(("device", "mode"), MODES, ids=[f"{d.name}-{m.name}" for d, m in MODES])
def test_quoted_figures_follow_from_the_table(device: Device, mode: Mode) -> None:
    """To the rounding of the quotation: 2 %, one unit of two digits (3 % for Xavier's 22 and 11).

    A sparse figure is twice the dense one.
    """
    for quoted, fact in mode.quoted.items():
        width, _, sparse = quoted.partition(" ")
        rate = device.rate(width, mode) / 1e12 * (2 if sparse else 1)
        assert rate == pytest.approx(fact.value, rel=0.03), quoted


def test_most_devices_have_a_quoted_figure_to_be_held_to() -> None:
    assert sum(any(mode.quoted for mode in device.modes) for device in DEVICES.values()) >= 9


def test_narrower_is_never_slower() -> None:
    for device, mode in MODES:
        order = [w for w in ("int4", "int8", "fp16", "fp32") if w in device.architecture.per_clock]
        rates = [device.rate(width, mode) for width in order]
        assert rates == sorted(rates, reverse=True), device.name


def test_modes_are_in_order_and_differ() -> None:
    for device in DEVICES.values():
        clocks = [mode.clock_mhz.value for mode in device.modes]
        assert clocks == sorted(set(clocks)), device.name
        assert len({mode.name for mode in device.modes}) == len(device.modes)


def test_the_jetpack_decides_the_mode() -> None:
    nano = find_device("orin-nano")
    assert nano.mode().name == nano.mode(jetpack="7.2").name == "MAXN_SUPER"
    assert nano.mode(jetpack="6.0").name == nano.mode(jetpack="5.1").name == "15W"
    assert nano.mode("maxn_super").name == "MAXN_SUPER"
    with pytest.raises(ExportError, match=r"'MAXN_SUPER' with JetPack 5.1; there are: 15W"):
        nano.mode("MAXN_SUPER", "5.1")
    with pytest.raises(ExportError, match="'turbo'; there are: 15W, MAXN_SUPER"):
        nano.mode("turbo")


def test_every_target_has_a_mode() -> None:
    for target in TARGETS.values():
        if target.device:
            device = DEVICES[target.device]
            assert device.mode(jetpack=target.jetpack).clock_mhz.value > 0


def test_what_a_device_lacks_is_said_with_what_it_has() -> None:
    nano = find_device("jetson-nano")
    assert nano.precisions == ("fp16", "fp32")
    with pytest.raises(ExportError, match=r"does not compute in int8; it has fp16, fp32"):
        nano.rate("int8", nano.mode())
    with pytest.raises(ExportError, match="no data of a device 'abacus'; there is data of orin"):
        find_device("abacus")
    assert find_device("orin-nano").precisions == PRECISIONS
