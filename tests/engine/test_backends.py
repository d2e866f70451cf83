"""What differs between TensorRT's editions and generations.

TensorRT proper needs a GPU even to build: stand-ins for its module show which flags each generation
is given, no more. TensorRT-RTX is the real one.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qmdd.exporter.engine.backends import Backend, RtxBackend, find_backend
from qmdd.exporter.errors import BuildError
from qmdd.runtime.errors import EngineError
from qmdd.runtime.tensorrt_api import load_tensorrt

#: Names that each generation has, of network flags and builder flags.
GENERATIONS = {
    "8.5.2.2": (("EXPLICIT_BATCH",), ("INT8", "FP16", "TF32")),
    "10.3.0": (("EXPLICIT_BATCH", "STRONGLY_TYPED"), ("INT8", "FP16", "TF32")),
    "11.4.1": ((), ("TF32",)),
}


class Config:
    def __init__(self) -> None:
        self.set: list[str] = []
        self.cleared: list[str] = []

    def set_flag(self, flag: str) -> None:
        self.set.append(flag)

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)


def api(version: str) -> SimpleNamespace:
    network, flags = GENERATIONS[version]
    places = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
    return SimpleNamespace(
        __version__=version,
        NetworkDefinitionCreationFlag=SimpleNamespace(**{n: places[n] for n in network}),
        BuilderFlag=SimpleNamespace(**{name: name for name in flags}),
    )


@pytest.mark.parametrize(
    ("version", "network", "permitted"),
    [("8.5.2.2", 1, ["INT8"]), ("10.3.0", 2, []), ("11.4.1", 0, [])],
)
def test_flags_of_each_generation(version: str, network: int, permitted: list[str]) -> None:
    """Nobody permits FP16, and TF32 is switched off: both would round exact sums."""
    backend, config = Backend(api(version)), Config()
    backend.configure(config, ("8.7",))
    assert backend.network_flags() == network
    assert config.set == permitted
    assert config.cleared == ["TF32"]


@pytest.mark.parametrize(
    ("installed", "versions", "fits"),
    [
        ("8.5.2.2", ("8.5", "8.5"), True),
        ("8.5.2.2", ("8.6", "8.6"), False),
        ("10.3.0", ("10.3", "10.7"), True),
        ("10.3.0", ("10.0", "11.9"), True),
        ("10.3.0", ("10.13", "11.9"), False),
        ("11.4.1", ("10.13", "10.16"), False),
        ("11.4.1", ("10.13", "11.9"), True),
    ],
)
def test_version_must_be_the_targets(monkeypatch, installed, versions, fits) -> None:
    monkeypatch.setattr("qmdd.exporter.engine.backends.load_tensorrt", lambda _name: api(installed))
    if fits:
        assert find_backend("tensorrt", versions).version == installed
    else:
        with pytest.raises(BuildError, match=rf"tensorrt here is {installed}, the target's is"):
            find_backend("tensorrt", versions)


class Gpu:
    def compute_capability(self) -> str:
        return "8.7"

    def driver_version(self) -> str:
        return "12.6"


def test_gpu_must_be_the_targets(monkeypatch) -> None:
    monkeypatch.setattr("qmdd.runtime.cuda.Cuda", Gpu)
    backend = Backend(api("10.3.0"))
    assert backend.capabilities(("8.7",)) == backend.capabilities(()) == ("8.7",)
    assert backend.device()["cuda"] == "12.6"
    with pytest.raises(BuildError, match=r"capability 8\.7, the target's 11\.0; build on the dev"):
        backend.capabilities(("11.0",))


def test_engine_of_tensorrt_is_read_by_its_inspector() -> None:
    layer = '{"Layers": [{"Name": "a/Conv", "LayerType": "CaskConvolution"}]}'
    inspector = SimpleNamespace(get_engine_information=lambda form: layer if form == 7 else "")
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    trt = api("10.3.0")
    trt.LayerInformationFormat = SimpleNamespace(JSON=7)
    trt.Runtime = lambda _logger: SimpleNamespace(deserialize_cuda_engine=lambda _plan: engine)
    (found,) = Backend(trt).layers(b"plan", None, [])
    assert (found.name, found.kind) == ("a/Conv", "convolution")
    trt.Runtime = lambda _logger: SimpleNamespace(deserialize_cuda_engine=lambda _plan: None)
    with pytest.raises(BuildError, match="cannot load the engine that it just built"):
        Backend(trt).layers(b"plan", None, [])


def test_real_rtx_has_no_capability_of_a_jetson(rtx) -> None:
    backend = RtxBackend(load_tensorrt("tensorrt_rtx"))
    assert backend.version == rtx
    config = SimpleNamespace(set_compute_capability=lambda *_: None)
    with pytest.raises(BuildError, match=r"nothing for compute capability 8\.7; choose another"):
        backend.configure(config, ("8.7",))


@pytest.mark.parametrize("messages", [[], ["Layers:\n", "Layers:\n"]])
def test_rtx_without_one_table(messages: list[str]) -> None:
    backend = RtxBackend(SimpleNamespace(__version__="1.7.1"))
    with pytest.raises(BuildError, match=f"logged {len(messages)} layer tables"):
        backend.layers(b"", None, messages)


def test_real_rtx_of_another_release_is_refused(rtx) -> None:
    with pytest.raises(BuildError, match=rf"tensorrt_rtx here is {rtx}, the target's is 1\.6"):
        find_backend("tensorrt_rtx", ("1.6", "1.6"))


def test_no_such_backend() -> None:
    with pytest.raises(EngineError, match="no backend 'tvm'; there are tensorrt, tensorrt_rtx"):
        find_backend("tvm", ("1", "1"))
