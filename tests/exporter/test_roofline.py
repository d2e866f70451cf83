"""The mathematics of the roofline: by hand, and as properties of any machine and network."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.exporter.devices import DEVICES, PRECISIONS, find_device
from qmdd.exporter.errors import ExportError
from qmdd.exporter.roofline import ANY, Bound, Estimate, Roofs, assumptions, estimate, roofs_of
from qmdd.exporter.workload import KINDS, Layer, Tensor

#: 1 T operations a second in int8, 100 G otherwise, 10 G on single numbers, 1 GB/s.
ROOFS = Roofs(
    "a machine",
    products={"int8": 1e12, "fp16": 2e11, "fp32": 1e11},
    floats=1e11,
    elementwise={ANY: 1e10, "Slow": 1e9},
    bandwidth=1e9,
)
CODES, FLOATS = Tensor("codes", 1000, "codes"), Tensor("sums", 2000, "floats")
CONV = Layer(
    "conv",
    "conv",
    multiply_adds=3_000_000,
    weights=4000,
    stored_bytes=1000,
    compute="int8",
    constants=10,
    reads=(CODES,),
    writes=(FLOATS,),
)
EPILOGUE = Layer("codes", "epilogue", reads=(FLOATS,), writes=(CODES,), elementwise={"Add": 50_000})


def _bound(layer: Layer, precision: str = "int8", batch: int = 1, roofs: Roofs = ROOFS) -> Bound:
    layers = [layer] if layer.compute == "int8" else [layer, CONV]
    return estimate(layers, roofs, precision, batch).bounds[0]


def test_one_convolution_by_hand() -> None:
    bound = _bound(CONV)
    assert bound.width == "int8"
    assert bound.compute_ms == pytest.approx(6e6 / 1e12 * 1e3)
    assert bound.weight_bytes == 4000 + 4 * 10
    assert bound.memory_bytes == 1000 + 4 * 2000
    assert bound.memory_ms == pytest.approx((4040 + 9000) / 1e9 * 1e3)
    assert (bound.ms, bound.limit) == (bound.memory_ms, "memory")
    half, single = _bound(CONV, "fp16"), _bound(CONV, "fp32")
    assert (half.weight_bytes, half.memory_bytes) == (2 * 4010, 2 * 3000)
    assert (single.weight_bytes, single.memory_bytes) == (4 * 4010, 4 * 3000)
    assert single.compute_ms == pytest.approx(6e6 / 1e11 * 1e3)
    assert (single.ms, single.limit) == (single.compute_ms, "compute")


def test_element_wise_work_by_hand() -> None:
    bound = _bound(EPILOGUE)
    assert bound.width == ""
    assert bound.elementwise_ms == pytest.approx(50_000 / 1e10 * 1e3)
    slow = dataclasses.replace(EPILOGUE, elementwise={"Slow": 50_000, "Add": 50_000})
    assert _bound(slow).elementwise_ms == pytest.approx((50_000 / 1e9 + 50_000 / 1e10) * 1e3)
    assert (_bound(slow).ms, _bound(slow).limit) == (_bound(slow).elementwise_ms, "elementwise")


def test_pixels_and_flags_keep_their_width() -> None:
    layer = dataclasses.replace(
        EPILOGUE, reads=(Tensor("image", 300, "pixels", True), Tensor("f", 70, "flags")), writes=()
    )
    for precision in PRECISIONS:
        assert _bound(layer, precision).memory_bytes == 370


def test_weights_that_are_unpacked_are_read_written_and_read() -> None:
    unpacked = dataclasses.replace(CONV, unpacked=True)
    assert _bound(unpacked).weight_bytes == 1000 + 4000 + 4000 + 40
    assert _bound(unpacked, "fp16").weight_bytes == _bound(CONV, "fp16").weight_bytes
    product = dataclasses.replace(CONV, unpacked=True, compute="float16")
    assert _bound(product).weight_bytes == 1000 + 40
    assert _bound(product).width == "fp16"
    float_layer = dataclasses.replace(CONV, compute="float32")
    assert _bound(float_layer).weight_bytes == 4 * 4000 + 40
    assert _bound(float_layer).width == "fp32"


def test_depthwise_convolutions_run_on_the_ordinary_cores() -> None:
    depthwise = dataclasses.replace(CONV, kind="depthwise", compute="float32")
    roofs = dataclasses.replace(ROOFS, floats=1e9)
    for precision in PRECISIONS:
        assert _bound(depthwise, precision, roofs=roofs).compute_ms == pytest.approx(6.0)


def test_what_fits_into_the_cache_is_not_moved_from_memory() -> None:
    roofs = dataclasses.replace(ROOFS, cache_bytes=4000)
    bound = _bound(CONV, roofs=roofs)
    assert (bound.cache_bytes, bound.memory_bytes) == (1000, 8000)
    assert bound.memory_ms == pytest.approx((4040 + 8000) / 1e9 * 1e3)
    slow = dataclasses.replace(roofs, cache_bandwidth=2e9)
    assert _bound(CONV, roofs=slow).memory_ms == pytest.approx(12040 / 1e6 + 1000 / 2e6)
    # A batch of two codes is still in it, of five no longer; the network's own input never was.
    assert _bound(CONV, batch=4, roofs=roofs).cache_bytes == 4000
    assert _bound(CONV, batch=5, roofs=roofs).cache_bytes == 0
    image = dataclasses.replace(CONV, reads=(CODES._replace(outside=True),))
    assert _bound(image, roofs=roofs).cache_bytes == 0


def test_totals_are_sums() -> None:
    found = estimate([CONV, EPILOGUE, CONV], ROOFS, "int8")
    assert found.ms == pytest.approx(sum(bound.ms for bound in found.bounds))
    assert sum(found.by_kind().values()) == pytest.approx(found.ms)
    assert sum(found.by_limit().values()) == pytest.approx(found.ms)
    assert list(found.by_kind()) == ["conv", "epilogue"]
    assert found.total("multiply_adds") == 6_000_000
    assert found.images_per_second == pytest.approx(1000 / found.ms)
    plain = found.to_dict()
    assert plain["ms"] == found.ms
    assert [layer["limit"] for layer in plain["layers"]] == [b.limit for b in found.bounds]
    assert "layers" not in found.to_dict(layers=False)


_COUNTS = st.integers(1, 10**9)
_RATES = st.floats(1e6, 1e15)


@st.composite
def _layers(draw: st.DrawFn) -> list[Layer]:
    tensors = st.builds(
        Tensor, st.just("t"), _COUNTS, st.sampled_from(["codes", "floats", "pixels"]), st.booleans()
    )
    one = st.builds(
        Layer,
        st.just("layer"),
        st.sampled_from(KINDS),
        multiply_adds=st.integers(0, 10**12),
        weights=_COUNTS,
        stored_bytes=_COUNTS,
        unpacked=st.booleans(),
        compute=st.sampled_from(["int8", "float16", "float32"]),
        constants=st.integers(0, 10**6),
        reads=st.lists(tensors, max_size=3).map(tuple),
        writes=st.lists(tensors, max_size=2).map(tuple),
        elementwise=st.dictionaries(st.sampled_from(["Add", "Mul"]), _COUNTS),
    )
    return [CONV, *draw(st.lists(one, min_size=1, max_size=5))]


@st.composite
def _roofs(draw: st.DrawFn) -> Roofs:
    return Roofs(
        "any machine",
        products={width: draw(_RATES) for width in PRECISIONS},
        floats=draw(_RATES),
        elementwise={ANY: draw(_RATES), "Add": draw(_RATES)},
        bandwidth=draw(_RATES),
        cache_bytes=draw(st.floats(0, 1e9)),
        cache_bandwidth=draw(st.one_of(st.just(math.inf), _RATES)),
        start=draw(st.floats(0, 1e-3)),
    )


def _scaled(roofs: Roofs, field: str, factor: float) -> Roofs:
    value = getattr(roofs, field)
    if isinstance(value, dict):
        return dataclasses.replace(roofs, **{field: {k: v * factor for k, v in value.items()}})
    return dataclasses.replace(roofs, **{field: value * factor})


_SPEEDS = ("products", "floats", "elementwise", "bandwidth", "cache_bandwidth")


@given(_layers(), _roofs(), st.sampled_from(PRECISIONS), st.sampled_from(_SPEEDS))
def test_a_faster_machine_is_never_slower(
    layers: list[Layer], roofs: Roofs, precision: str, field: str
) -> None:
    """And all roofs twice as high, with no start, take exactly half the time."""
    slow = estimate(layers, roofs, precision)
    fast = estimate(layers, _scaled(roofs, field, 2.0), precision)
    assert fast.ms <= slow.ms
    for fast_bound, slow_bound in zip(fast.bounds, slow.bounds, strict=True):
        assert fast_bound.ms <= slow_bound.ms
    free = dataclasses.replace(roofs, start=0.0)
    twice = free
    for name in _SPEEDS:
        twice = _scaled(twice, name, 2.0)
    assert estimate(layers, twice, precision).ms == pytest.approx(
        estimate(layers, free, precision).ms / 2
    )


@given(_layers(), _roofs(), st.sampled_from(PRECISIONS))
def test_a_kernel_takes_its_largest_term(layers: list[Layer], roofs: Roofs, precision: str) -> None:
    for bound in estimate(layers, roofs, precision).bounds:
        terms = {
            "compute": bound.compute_ms,
            "elementwise": bound.elementwise_ms,
            "memory": bound.memory_ms,
            "start": bound.start_ms,
        }
        work = [value for name, value in terms.items() if name != "start"]
        assert bound.ms == max(work) + roofs.start * 1e3
        assert terms[bound.limit] == max(terms.values())
        assert all(bound.ms >= value for value in terms.values())


@given(_layers(), _roofs(), st.sampled_from(PRECISIONS), st.integers(2, 64))
def test_a_batch_shares_its_weights(
    layers: list[Layer], roofs: Roofs, precision: str, batch: int
) -> None:
    """Without a cache: never slower than images one by one, and work grows with the batch."""
    bare = dataclasses.replace(roofs, cache_bytes=0.0)
    one, many = (estimate(layers, bare, precision, n) for n in (1, batch))
    assert one.ms <= many.ms <= batch * one.ms * (1 + 1e-9)
    assert many.total("multiply_adds") == batch * one.total("multiply_adds")
    assert many.total("elementwise") == batch * one.total("elementwise")
    assert many.total("memory_bytes") == batch * one.total("memory_bytes")
    assert many.total("weight_bytes") == one.total("weight_bytes")


@given(_layers(), _roofs(), st.sampled_from(PRECISIONS))
def test_a_larger_cache_moves_less_from_memory(
    layers: list[Layer], roofs: Roofs, precision: str
) -> None:
    small = estimate(layers, roofs, precision)
    large = estimate(layers, _scaled(roofs, "cache_bytes", 3.0), precision)
    assert large.total("memory_bytes") <= small.total("memory_bytes")
    for fields in zip(large.bounds, small.bounds, strict=True):
        moved = [bound.memory_bytes + bound.cache_bytes for bound in fields]
        assert moved[0] == moved[1]


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_s_roofs_are_its_data(name: str) -> None:
    device = find_device(name)
    mode = device.mode()
    roofs = roofs_of(device, mode)
    assert tuple(roofs.products) == device.precisions
    assert roofs.bandwidth == mode.bandwidth.value * 1e9
    assert roofs.floats == roofs.elementwise[ANY] == device.rate("fp32", mode)
    assert roofs.start == 0
    assert math.isinf(roofs.cache_bandwidth)
    assert mode.name in roofs.name


def test_what_cannot_be_estimated_is_said() -> None:
    with pytest.raises(ExportError, match="no precision 'int3'; there are int8, fp16, fp32"):
        estimate([CONV], ROOFS, "int3")
    with pytest.raises(ExportError, match="batch 0: give at least 1"):
        estimate([CONV], ROOFS, "int8", 0)
    lacking = dataclasses.replace(ROOFS, products={"fp16": 1e11, "fp32": 1e11})
    with pytest.raises(ExportError, match="a machine does not compute in int8; it has fp16, fp32"):
        estimate([CONV], lacking, "int8")
    with pytest.raises(ExportError, match="nothing in this network is computed in int8"):
        estimate([EPILOGUE], ROOFS, "int8")
    assert isinstance(estimate([EPILOGUE], ROOFS, "fp16"), Estimate)


def test_the_assumptions_say_what_was_counted() -> None:
    bare = " ".join(assumptions(ROOFS, 128, 4))
    assert "128 x 128 pixels, 4 at a time" in bare
    assert "takes no time" in bare
    assert "cache" not in bare
    cached = dataclasses.replace(ROOFS, cache_bytes=3 << 20, start=2e-6)
    assert "at most 3 MiB stay in the cache, counted as free" in " ".join(
        assumptions(cached, 64, 1)
    )
    assert "takes 2.0 us, as measured" in " ".join(assumptions(cached, 64, 1))
    known = dataclasses.replace(cached, cache_bandwidth=5e10)
    assert "read and written at 50 GB/s" in " ".join(assumptions(known, 64, 1))
