"""A bundle against its own golden results: every planted fault is found, and named."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qmdd.runtime import Bundle
from qmdd.runtime.bundle import GOLDEN, MANIFEST, MODEL, manifest_bytes
from qmdd.runtime.errors import BundleError, SessionError
from qmdd.runtime.golden import Golden, read_golden, write_golden
from qmdd.runtime.golden_check import check_golden
from qmdd.runtime.parity import VerifyResult
from qmdd.runtime.probes import BYTES_LAST, LAYOUT, MAX_BYTES, PROBES

PROBES_FILE = PROBES[MODEL]
LIMITS = {"dark": 60.0, "light": 180.0}
LAYERS = tuple(LIMITS)
Plant = Callable[[Golden], Golden]


def model_bytes(last: bool = False) -> bytes:
    """``logit`` is that of the tiny model; code tensors ``dark`` and ``light`` of every pixel.

    With ``last``, light's codes are UINT8 ``[N, H, W, C]``, and the metadata say so.
    """
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "width"], ["logit"]),
    ]
    for name in LIMITS:
        made = f"{name}.codes" + (".first" if last else "")
        nodes.append(helper.make_node("Greater", ["pixels", f"{name}.t"], [f"{name}.is"]))
        kind = TensorProto.UINT8 if last else TensorProto.FLOAT
        nodes.append(helper.make_node("Cast", [f"{name}.is"], [made], to=kind))
        if last:
            nodes.append(
                helper.make_node("Transpose", [made], [f"{name}.codes"], perm=[0, 2, 3, 1])
            )
    constants = {"middle": 128.0, "width": 32.0, **{f"{n}.t": t for n, t in LIMITS.items()}}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"])],
        [numpy_helper.from_array(np.float32(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if last:
        model.metadata_props.add(key=LAYOUT, value=BYTES_LAST)
    return bytes(model.SerializeToString())


def probes_bytes(last: bool = False) -> bytes:
    kind = TensorProto.UINT8 if last else TensorProto.FLOAT
    part = onnx.ModelProto()
    for layer in LAYERS:
        part.graph.output.append(helper.make_tensor_value_info(f"{layer}.codes", kind, None))
    return bytes(part.SerializeToString())


def true_golden() -> Golden:
    """Two images of different sizes, one called real and one fake; codes flat, in C order."""
    random = np.random.default_rng(3)
    images = [random.integers(0, high, (3, side, 34)).astype(np.uint8)
              for high, side in ((200, 32), (256, 40))]  # fmt: skip
    images[1] = np.maximum(images[1], 40)
    logits = [(image.astype(np.float64).mean() - 128) / 32 for image in images]
    assert logits[0] < 0 < logits[1]
    codes = [
        {name: (image > limit).astype(np.uint8).reshape(-1) for name, limit in LIMITS.items()}
        for image in images
    ]
    return Golden(images, np.array(logits, dtype=np.float32), codes)


@pytest.fixture
def make_golden_bundle(
    tmp_path: Path, tiny_manifest: Callable[[], dict[str, Any]]
) -> Callable[..., Path]:
    """``make(plant, last=, files=, **manifest)``: ``plant`` changes the golden results.

    ``files`` replaces contents, ``None`` leaves a file out; the manifest vouches for all of them.
    """

    def make(
        plant: Plant = lambda golden: golden,
        *,
        last: bool = False,
        files: dict[str, bytes | None] | None = None,
        **changes: Any,
    ) -> Path:
        folder = tmp_path / "bundle"
        (folder / "parity").mkdir(parents=True)
        write_golden(folder / GOLDEN, plant(true_golden()))
        held: dict[str, bytes | None] = {
            MODEL: model_bytes(last),
            PROBES_FILE: probes_bytes(last),
            GOLDEN: (folder / GOLDEN).read_bytes(),
            **(files or {}),
        }
        (folder / GOLDEN).unlink()
        listed = {}
        for name, data in held.items():
            if data is not None:
                (folder / name).write_bytes(data)
                digest = hashlib.sha256(data).hexdigest()
                listed[name] = {"sha256": digest, "bytes": len(data)}
        manifest = {**tiny_manifest(), "files": listed, **changes}
        (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
        return folder

    return make


def check(bundle: Path, **options: Any) -> VerifyResult:
    return check_golden(bundle, threads=1, **options)


@pytest.mark.parametrize("last", [False, True])
def test_a_sound_bundle_passes(make_golden_bundle: Callable[..., Path], last: bool) -> None:
    """Codes of both images, also where the model holds them channels-last."""
    said: list[tuple[str, int, int]] = []
    bundle = make_golden_bundle(last=last)
    result = check(bundle, report=lambda *given: said.append(given))
    assert result.passed
    assert (result.against, result.notes) == ("golden", [])
    assert [tier.tier for tier in result.parity] == ["strict", "deployed"]
    for tier in result.parity:
        assert tier.images == 2
        assert [layer.layer for layer in tier.layers] == list(LAYERS)
        assert tier.codes_compared == 2 * 3 * 34 * (32 + 40)
        assert tier.wrong_codes == tier.flipped_verdicts == 0
        assert tier.max_abs_logit_diff < 1e-6
    assert said == [("golden", done, 4) for done in (1, 2, 3, 4)]
    plain = json.loads(json.dumps(result.to_dict()))
    assert (plain["bundle"], plain["against"], plain["passed"]) == (str(bundle), "golden", True)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("image", [0, 1])
def test_one_wrong_code_is_found_in_its_layer(
    make_golden_bundle: Callable[..., Path], image: int, last: bool
) -> None:
    def plant(golden: Golden) -> Golden:
        golden.codes[image]["light"][7] ^= 1
        return golden

    result = check(make_golden_bundle(plant, last=last))
    assert not result.passed
    for tier in result.parity:
        assert {layer.layer: layer.wrong for layer in tier.layers} == {"dark": 0, "light": 1}


@pytest.mark.parametrize(("by", "passed"), [(9e-6, True), (1.2e-5, False)])
def test_a_logit_off_by_more_than_its_bar_is_found(
    make_golden_bundle: Callable[..., Path], by: float, passed: bool
) -> None:
    def plant(golden: Golden) -> Golden:
        golden.logits[0] += np.float32(by)
        return golden

    result = check(make_golden_bundle(plant))
    assert result.passed is passed
    assert all(tier.max_abs_logit_diff == pytest.approx(by, rel=0.1) for tier in result.parity)


def test_a_flipped_verdict_is_found(make_golden_bundle: Callable[..., Path]) -> None:
    def plant(golden: Golden) -> Golden:
        golden.logits[1] *= np.float32(-1)
        return golden

    result = check(make_golden_bundle(plant))
    assert [tier.flipped_verdicts for tier in result.parity] == [1, 1]
    assert not result.passed


def test_tiers_can_be_chosen(make_golden_bundle: Callable[..., Path]) -> None:
    bundle = make_golden_bundle()
    assert [tier.tier for tier in check(bundle, tiers=["deployed"]).parity] == ["deployed"]
    with pytest.raises(SessionError, match="no tier 'quick'; there are strict, deployed"):
        check(bundle, tiers=["quick"])


def test_without_probes_logits_alone_are_compared_and_it_says_so(
    make_golden_bundle: Callable[..., Path],
) -> None:
    """A bundle of before: what is compared decides."""
    sound = check(make_golden_bundle(files={PROBES_FILE: None}))
    assert sound.passed
    assert all(tier.codes_compared == 0 and tier.images == 2 for tier in sound.parity)
    (note,) = sound.notes
    assert "codes were not" in note


def test_without_probes_a_wrong_logit_is_still_found(
    make_golden_bundle: Callable[..., Path],
) -> None:
    def plant(golden: Golden) -> Golden:
        golden.logits[0] += np.float32(1e-4)  # within the bar of full precision
        return golden

    assert not check(make_golden_bundle(plant, files={PROBES_FILE: None})).passed


def test_full_precision_has_no_codes(make_golden_bundle: Callable[..., Path]) -> None:
    def plant(golden: Golden) -> Golden:
        return Golden(golden.images, golden.logits, [{}, {}])

    result = check(make_golden_bundle(plant, files={PROBES_FILE: None}, bits=32))
    assert result.passed
    assert result.notes == []
    assert result.parity[0].logit_bar == 1e-4


def test_golden_results_without_codes_do_not_stand_for_a_quantised_model(
    make_golden_bundle: Callable[..., Path],
) -> None:
    bundle = make_golden_bundle(lambda g: Golden(g.images, g.logits, [{}, {}]))
    with pytest.raises(BundleError, match=r"golden\.safetensors: no codes of a model of 2 bits"):
        check(bundle)


def test_a_bundle_without_golden_results_is_one_error(
    make_golden_bundle: Callable[..., Path],
) -> None:
    with pytest.raises(BundleError, match="holds no golden results to compare with; export"):
        check(make_golden_bundle(files={GOLDEN: None}))


@pytest.mark.parametrize("name", [GOLDEN, PROBES_FILE])
def test_a_changed_byte_is_refused(make_golden_bundle: Callable[..., Path], name: str) -> None:
    bundle = make_golden_bundle()
    data = bytearray((bundle / name).read_bytes())
    data[-1] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: its SHA-256 differs"):
        check(bundle)


@pytest.mark.parametrize(
    ("probes", "says"),
    [
        (b"\xff" * 50, "strict tier: model: cannot be loaded"),
        (b"", "strict tier: model: has no output dark.codes, light.codes"),
    ],
)
def test_foreign_probes_end_in_one_line(
    make_golden_bundle: Callable[..., Path], probes: bytes, says: str
) -> None:
    with pytest.raises(SessionError) as error:
        check(make_golden_bundle(files={PROBES_FILE: probes}))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_probes_that_name_what_is_not_there_end_in_one_line(
    make_golden_bundle: Callable[..., Path],
) -> None:
    part = onnx.ModelProto()
    part.graph.output.append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, None))
    with pytest.raises(SessionError, match="cannot be loaded") as error:
        check(make_golden_bundle(files={PROBES_FILE: part.SerializeToString()}))
    assert "\n" not in str(error.value)


def test_large_probes_are_refused_unread(make_golden_bundle: Callable[..., Path]) -> None:
    bundle = make_golden_bundle(files={PROBES_FILE: bytes(MAX_BYTES + 1)})
    with pytest.raises(BundleError, match=r"probes\.pb: larger than 1 MiB, so not one of ours"):
        check(bundle)


def test_codes_of_another_size_are_refused(make_golden_bundle: Callable[..., Path]) -> None:
    def plant(golden: Golden) -> Golden:
        golden.codes[1]["dark"] = golden.codes[1]["dark"][:-1]
        return golden

    with pytest.raises(BundleError, match=r"dark has shape \[4080\] in the exported model"):
        check(make_golden_bundle(plant))


def test_a_model_for_fpga_flows_is_refused(make_golden_bundle: Callable[..., Path]) -> None:
    with pytest.raises(SessionError, match="scores no images here"):
        check(make_golden_bundle(runtime="qonnx"))


def test_neither_torch_nor_onnx_nor_another_room_is_needed(
    make_golden_bundle: Callable[..., Path],
) -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "from qmdd.runtime.golden_check import check_golden\n"
        "print(check_golden(sys.argv[1], threads=1).passed)\n"
        "print(*sorted({n.split('.')[1] for n in sys.modules if n.startswith('qmdd.')}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(make_golden_bundle())],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "runtime"], done.stderr


def test_the_file_is_what_it_says(make_golden_bundle: Callable[..., Path]) -> None:
    """The stand-in is a bundle like any other."""
    bundle = Bundle.open(make_golden_bundle())
    assert bundle.golden_path is not None
    assert read_golden(bundle.golden_path).layers == list(LAYERS)
