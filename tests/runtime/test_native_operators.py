"""The native operators through ONNX Runtime, on every kernel of this processor."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import native

from .native_models import Array, Layer, expected, model_of, run, serialised, session_of

pytestmark = pytest.mark.skipif(native.library_path() is None, reason=native.why_absent())
KERNELS = native.kernels() if native.library_path() else ()
PROPERTY = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(random: np.random.Generator, *shape: int) -> Array:
    """Floats on a coarse grid, so that sums meet thresholds exactly."""
    return (random.integers(-40, 40, shape) / 8).astype(np.float32)


def layer_of(random: np.random.Generator, *, side: int = 7, **attrs: Any) -> Layer:
    """A convolution of random codes and weights; ``attrs`` as of :class:`Layer`."""
    bits, channels = attrs.pop("bits", 2), attrs.pop("channels", 9)
    outputs, size, levels = attrs.pop("outputs", 37), attrs.pop("size", 3), attrs.pop("levels", 3)
    top = attrs.get("top_code", 3)
    groups = outputs if attrs.get("groups", 1) > 1 else 1
    each = 1 if groups > 1 else channels
    per_channel = attrs.pop("per_channel", True)
    table = np.sort(rows(random, outputs if per_channel else 1, levels), axis=1)
    return Layer(
        x=random.integers(0, top + 1, (2, side, side + 3, each * groups)).astype(np.uint8),
        index=random.integers(0, 2**bits, (outputs, size, size, each)),
        multiplier=rows(random, outputs),
        bias=rows(random, outputs),
        table=table if levels else None,
        attrs={
            "bits": bits,
            "first": 1 - 2**bits,
            "step": 2,
            "pads": [size // 2] * 4,
            "top_code": top,
            **attrs,
            "groups": groups,
        },
    )


def assert_equal(layer: Layer, threads: int = 1) -> None:
    codes, z = run(layer, threads)
    wanted, floats = expected(layer)
    np.testing.assert_array_equal(z, floats)
    if wanted is not None:
        np.testing.assert_array_equal(codes, wanted)


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Sessions of the test use these kernels."""
    monkeypatch.setenv(native.KERNELS_VARIABLE, request.param)
    assert native.chosen_kernels() == request.param
    return str(request.param)


@PROPERTY
@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([1, 2, 3, 4, 8]),
    channels=st.sampled_from([1, 3, 4, 16, 64]),
    outputs=st.integers(1, 70),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    levels=st.sampled_from([0, 1, 3, 7, 15, 63, 255]),
    per_channel=st.booleans(),
    halo=st.integers(0, 2),
    in_halo=st.integers(0, 2),
    top=st.sampled_from([1, 3, 7, 15, 255]),
    zero=st.integers(0, 2),
    side=st.integers(4, 20),
)
def test_codes_and_floats_are_those_of_the_definition(
    kernels: str, seed: int, bits: int, channels: int, outputs: int, size: int, stride: int,
    levels: int, per_channel: bool, halo: int, in_halo: int, top: int, zero: int, side: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    layer = layer_of(
        random, side=side, bits=bits, channels=channels, outputs=outputs, size=size,
        levels=levels, per_channel=per_channel, stride=[stride, stride], out_halo=halo,
        in_halo=[in_halo] * 4, top_code=top, pad_code=min(zero, top), out_pad_code=zero,
    )  # fmt: skip
    assert_equal(layer)


def test_addends_come_in_order(kernels: str) -> None:
    random = np.random.default_rng(1)
    layer = layer_of(random)
    layer.addends = (rows(random, 2, 7, 10, 37), rows(random, 2, 7, 10, 37))
    layer.factors = (0.3, 1.0)
    assert_equal(layer)


def test_an_unfolded_chain_with_negative_slopes(kernels: str) -> None:
    random = np.random.default_rng(2)
    layer = layer_of(random)
    layer.chain = (rows(random, 37), rows(random, 37), rows(random, 37))
    assert (layer.chain[1] < 0).any()
    assert_equal(layer)


@pytest.mark.parametrize("pool", [(3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_relu_and_maximum_pooling(kernels: str, pool: tuple[int, int, int]) -> None:
    layer = layer_of(np.random.default_rng(3), relu=1, pool=list(pool), side=19, out_halo=1)
    assert_equal(layer)


@pytest.mark.parametrize("zero", [0, 2])
def test_a_channel_with_its_own_kernel(kernels: str, zero: int) -> None:
    random = np.random.default_rng(4)
    assert_equal(layer_of(random, groups=37, stride=[2, 2], pad_code=zero))


def test_threads_change_nothing(kernels: str) -> None:
    layer = layer_of(np.random.default_rng(5), side=40, channels=64, outputs=70)
    assert_equal(layer, threads=2)


def test_one_session_run_by_several_threads_at_once(kernels: str) -> None:
    """As ``qmdd detect`` does; each thread has memory of its own."""
    random = np.random.default_rng(12)
    layer = layer_of(random, side=24, channels=64, outputs=70)
    session = session_of(model_of(layer))
    inputs = [random.integers(0, 4, layer.x.shape).astype(np.uint8) for _ in range(24)]
    wanted = [expected(dataclasses.replace(layer, x=x))[0] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: session.run(["codes"], {"x": x})[0], inputs))
    for ours, codes in zip(found, wanted, strict=True):
        assert codes is not None
        np.testing.assert_array_equal(ours, codes)


def test_numbers_that_are_none_reach_no_threshold(kernels: str) -> None:
    layer = layer_of(np.random.default_rng(6))
    layer.bias[:3] = np.nan, np.inf, -np.inf
    codes, z = run(layer)
    assert codes is not None
    assert not codes[..., 0].any()
    assert (codes[..., 1] == 3).all()
    assert not codes[..., 2].any()
    assert np.isnan(z[..., 0]).all()


@pytest.mark.parametrize(("rows_of_table", "levels"), [(1, 3), (37, 15), (37, 255)])
def test_threshold_makes_the_codes_of_floats(kernels: str, rows_of_table: int, levels: int) -> None:
    random = np.random.default_rng(7)
    x, table = rows(random, 2, 5, 6, 37), np.sort(rows(random, rows_of_table, levels), axis=1)
    node = helper.make_node(
        "Threshold", ["x", "table"], ["codes"], domain="qmdd", out_halo=1, out_pad_code=2
    )
    model = serialised(
        [node],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info("codes", TensorProto.UINT8, None)],
        [numpy_helper.from_array(table, "table")],
    )
    (codes,) = session_of(model).run(None, {"x": x})
    wanted = (x[..., None] >= table).sum(-1)
    np.testing.assert_array_equal(codes[:, 1:-1, 1:-1], wanted)
    assert set(np.unique(codes[:, 0])) == {2}


@pytest.mark.parametrize(("window", "round_up"), [((2, 2), 1), ((1, 2), 0), ((2, 1), 1)])
def test_mean_pool_is_average_pool_one_side_after_the_other(
    window: tuple[int, int], round_up: int
) -> None:
    x = np.random.default_rng(8).normal(size=(2, 7, 5, 11)).astype(np.float32)
    node = helper.make_node(
        "MeanPool", ["x"], ["y"], domain="qmdd", window=list(window), round_up=round_up
    )
    plain = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        *(
            helper.make_node(
                "AveragePool", [source], [out], kernel_shape=w, strides=w, ceil_mode=round_up
            )
            for source, out, w in (("a", "b", [1, window[1]]), ("b", "c", [window[0], 1]))
        ),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    infos = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 4)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    ours, theirs = (
        session_of(serialised(nodes, *infos, [])).run(None, {"x": x})[0]
        for nodes in ([node], plain)
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": np.zeros(3, np.uint8)}, "weights: wrong number of bytes"),
        ({"bits": 9}, "weights have 1 to 8 bits"),
        ({"groups": 2}, "groups must be 1"),
        ({"kernel": [3]}, "kernel: wrong number of integers"),
        ({"in_channels": 0}, "channels must be within"),
        ({"bias": np.zeros(36, np.float32)}, "one number a channel"),
        ({"first": 30000}, "first and step must be within 1024"),
        ({"first": -1024, "step": 1024}, "weights must be within 2039"),
        ({"pad_code": 4}, "pad_code is a code, top_code at most"),
        ({"addends": 2, "factors": [1.0]}, "needs a factor for each addend"),
        ({"table": np.zeros((5, 3), np.float32)}, "a table has one row, or one a channel"),
        ({"table": np.zeros((37, 256), np.float32)}, "at most 255 thresholds"),
        ({"slope": np.zeros(37, np.float32)}, "come together"),
        ({"pool": [3, 2, 5]}, "less padding"),
        ({"pads": [-1, 0, 0, 0]}, "pads and halo"),
        ({"addends": 3}, "at most two addends"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_the_session_loads(
    changed: dict[str, Any], message: str
) -> None:
    model = model_of(layer_of(np.random.default_rng(9)), **changed)
    with pytest.raises(Exception, match=message):
        session_of(model)


def test_inputs_that_do_not_fit_are_refused_when_it_runs() -> None:
    random = np.random.default_rng(10)
    layer = layer_of(random, size=4, pads=[0, 0, 0, 0])
    session = session_of(model_of(layer))
    with pytest.raises(Exception, match="the image is too small"):
        session.run(None, {"x": layer.x[:, :2]})
    with pytest.raises(Exception, match="codes must be"):
        session.run(None, {"x": layer.x[..., :5]})
    layer.addends, layer.factors = (rows(random, 2, 3, 3, 37),), (1.0,)
    with pytest.raises(Exception, match="an addend must have the shape"):
        run(layer)


def test_weights_of_a_channel_of_its_own_are_within_int16() -> None:
    layer = layer_of(np.random.default_rng(12), groups=37, channels=37, bits=8)
    with pytest.raises(Exception, match="weights must be within INT16"):
        session_of(model_of(layer, first=-1024, step=1024))


def test_the_largest_weights_are_exact(kernels: str) -> None:
    """Two parts of 8 bits hold up to 2039."""
    layer = layer_of(np.random.default_rng(13), bits=8)
    layer.attrs.update(first=1, step=8)  # 1, 9, .. 2041 is too far
    with pytest.raises(Exception, match="weights must be within 2039"):
        session_of(model_of(layer))
    layer.attrs["first"] = -1
    assert_equal(layer)


def test_a_thread_that_flushes_subnormal_numbers(kernels: str) -> None:
    """``torch.set_flush_denormal`` changes no code, and is in force again afterwards."""
    torch = pytest.importorskip("torch", reason="pip install 'qmdd[export]'")
    layer = layer_of(np.random.default_rng(14), levels=3)
    layer.multiplier = np.where(np.arange(37) % 2, np.float32(1e-45), np.float32(1.0))
    layer.bias = np.zeros(37, np.float32)
    layer.table = np.tile(np.float32([[-1e-45, 1e-45, 5e-45]]), (37, 1))
    session, wanted = session_of(model_of(layer)), expected(layer)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        codes, z = session.run(None, {"x": layer.x})
        flushes = torch.tensor(1e-45).mul(1.0).item() == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert flushes
    np.testing.assert_array_equal(codes, wanted[0])
    np.testing.assert_array_equal(z, wanted[1])


def test_kernels_that_this_processor_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.KERNELS_VARIABLE, "sse9")
    with pytest.raises(Exception, match="QMDD_KERNELS=sse9: not on this processor"):
        session_of(model_of(layer_of(np.random.default_rng(11))))
