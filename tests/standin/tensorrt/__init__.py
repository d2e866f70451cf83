"""A stand-in for TensorRT 10: its builder keeps the ONNX model, its engines run in ONNX Runtime.

For tests of whole commands on a "device" that has no GPU: ``tests/standin/device.py`` makes the
environment of one. It shows that files, processes, shapes and errors are handled as they must be;
not that TensorRT agrees. Environment variables make it another or a faulty one:

* ``STANDIN_TENSORRT``: its version; default: 10.3.0;
* ``STANDIN_FAULT``: a part of an output's name; engines add 1 to such outputs when they run.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
from typing import Any

import numpy as np
import onnxruntime

from ._wire import nodes_of

__version__ = os.environ.get("STANDIN_TENSORRT", "10.3.0")

_MAGIC = b"stand-in engine\n"


class DataType(enum.Enum):
    FLOAT, UINT8, INT8, INT32, INT64, BOOL = range(6)


class BuilderFlag(enum.IntEnum):
    TF32, INT8 = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.Enum):
    DETAILED = 0


class LayerInformationFormat(enum.Enum):
    JSON = 0


class TensorFormat(enum.IntEnum):
    LINEAR = 0


class ILogger:
    def __init__(self) -> None:
        pass


class Logger(ILogger):
    ERROR = 1

    def __init__(self, _level: int) -> None:
        super().__init__()


_KINDS = {
    "tensor(float)": DataType.FLOAT,
    "tensor(uint8)": DataType.UINT8,
    "tensor(int8)": DataType.INT8,
}


def _session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class _Tensor:
    def __init__(self, described: Any) -> None:
        self.name, self.shape = described.name, described.shape
        self.dtype = _KINDS[described.type]
        self.allowed_formats = 0


class _Network:
    def __init__(self) -> None:
        self.model = b""
        self.inputs: list[_Tensor] = []
        self.outputs: list[_Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]

    def get_output(self, index: int) -> _Tensor:
        return self.outputs[index]


class _Error:
    def __init__(self, text: str) -> None:
        self.desc = lambda: text


class OnnxParser:
    def __init__(self, network: _Network, _logger: ILogger) -> None:
        self._network = network
        self._errors: list[_Error] = []

    def parse(self, model: bytes) -> bool:
        try:
            session = _session(model)
        except Exception as error:  # noqa: BLE001 - as TensorRT: whatever it is, it is told later
            self._errors.append(_Error(str(error)))
            return False
        self._network.model = model
        self._network.inputs = [_Tensor(one) for one in session.get_inputs()]
        self._network.outputs = [_Tensor(one) for one in session.get_outputs()]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> _Error:
        return self._errors[index]


class _Config:
    def set_memory_pool_limit(self, _pool: MemoryPoolType, _limit: int) -> None:
        pass

    def set_flag(self, _flag: BuilderFlag) -> None:
        pass

    def clear_flag(self, _flag: BuilderFlag) -> None:
        pass

    def add_optimization_profile(self, profile: _Profile) -> int:
        self.profile = profile
        return 0


class _Profile:
    def set_shape(self, _name: str, low: Any, _best: Any, high: Any) -> None:
        self.low, self.high = list(low), list(high)


class Builder:
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int) -> _Network:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return _Network()

    def create_builder_config(self) -> _Config:
        return _Config()

    def create_optimization_profile(self) -> _Profile:
        return _Profile()

    def build_serialized_network(self, network: _Network, config: _Config) -> bytes:
        about = {
            "version": __version__,
            "low": config.profile.low,
            "high": config.profile.high,
        }
        self._logger.log("Severity.INFO", "stand-in: builds")
        return _MAGIC + json.dumps(about).encode() + b"\n" + network.model


class Runtime:
    def __init__(self, _logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, data: bytes) -> _Engine | None:
        if not data.startswith(_MAGIC):
            return None
        head, _, model = data[len(_MAGIC) :].partition(b"\n")
        about = json.loads(head)
        return _Engine(model, about) if about["version"] == __version__ else None


class _Engine:
    def __init__(self, model: bytes, about: dict[str, Any]) -> None:
        self.model, self.about = model, about
        self.session = _session(model)
        described = [*self.session.get_inputs(), *self.session.get_outputs()]
        self._tensors = [_Tensor(one) for one in described]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index].name)

    def get_tensor_dtype(self, name: str) -> DataType:
        return next(one.dtype for one in self._tensors if one.name == name)

    def create_execution_context(self) -> _Context:
        return _Context(self)

    def create_engine_inspector(self) -> _Inspector:
        return _Inspector(self.model)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._places: dict[str, int] = {}
        self._shape: tuple[int, ...] = ()
        self._shapes: dict[tuple[int, ...], dict[str, tuple[int, ...]]] = {}

    def set_tensor_address(self, name: str, address: int) -> None:
        self._places[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "image"
        spans = zip(self._engine.about["low"], shape, self._engine.about["high"], strict=True)
        self._shape = tuple(shape)
        return all(low <= size <= high for low, size, high in spans)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Of an output, for the input's shape; found out by running once."""
        if self._shape not in self._shapes:
            made = self._run(np.zeros(self._shape, dtype=np.uint8))
            self._shapes[self._shape] = {one: array.shape for one, array in made.items()}
        return self._shapes[self._shape][name]

    def execute_async_v3(self, stream: int) -> bool:
        assert stream
        count = int(np.prod(self._shape))
        pixels = (ctypes.c_uint8 * count).from_address(self._places["image"])
        images = np.frombuffer(pixels, dtype=np.uint8).reshape(self._shape)
        fault = os.environ.get("STANDIN_FAULT")
        for name, array in self._run(images).items():
            found = array + array.dtype.type(1) if fault and fault in name else array
            held = np.ascontiguousarray(found)
            ctypes.memmove(self._places[name], held.ctypes.data, held.nbytes)
        return True

    def _run(self, images: Any) -> dict[str, Any]:
        names = [one.name for one in self._engine.session.get_outputs()]
        found = self._engine.session.run(names, {"image": images})
        return dict(zip(names, found, strict=True))


class _Inspector:
    """Every convolution and product, with the types that the graph gives its operands."""

    def __init__(self, model: bytes) -> None:
        self._model = model

    def get_engine_information(self, _form: LayerInformationFormat) -> str:
        nodes = nodes_of(self._model)
        made = {out: node for node in nodes for out in node.outputs}
        layers = []
        for node in nodes:
            if node.op not in ("Conv", "Gemm", "MatMul"):
                continue
            narrow = [
                name in made and made[name].op == "DequantizeLinear" for name in node.inputs[:2]
            ]
            kinds = ["Int8" if one else "Float" for one in narrow]
            layers.append(
                {
                    "Name": node.name,
                    "LayerType": "CaskConvolution" if node.op == "Conv" else "CaskGemm",
                    "Metadata": f"[ONNX Layer: {node.name}]",
                    "Inputs": [
                        {"Name": node.inputs[0], "Dimensions": [], "Format/Datatype": kinds[0]}
                    ],
                    "Weights": {"Type": kinds[1], "Count": 1 << 30},
                    "Outputs": [
                        {"Name": node.outputs[0], "Dimensions": [], "Format/Datatype": "Float"}
                    ],
                }
            )
        return json.dumps({"Layers": layers})
