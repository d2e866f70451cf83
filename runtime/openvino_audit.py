"""Planned against built, layer by layer: does OpenVINO run in INT8 what was lowered for it?

A convolution that OpenVINO cannot match with its INT8 kernels runs in float, silently, with the
same codes and a quarter of the speed. The plan is in the bundle's manifest; what was built is read
from the compiled model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .bundle import MODEL, Bundle
from .errors import BundleError
from .openvino_session import BuiltLayer, OpenvinoSession

#: OpenVINO's names of precisions, in the plan's words.
_PRECISIONS = {"i8": "int8", "u8": "int8", "f32": "float32", "bf16": "bfloat16", "f16": "float16"}
#: Where a layer cannot be found among those that were built.
MISSING = "missing"


class CompiledLayer(NamedTuple):
    """A convolution or matrix product of the model.

    Attributes:
        name: of its node in the model.
        op: ``Conv``, ``MatMul`` or ``Gemm``.
        planned: ``int8`` or ``float32``.
        built: the same, ``bfloat16``, ``float16``, or :data:`MISSING`.
        kernel: OpenVINO's implementation, such as ``brgconv_avx512_amx_I8``.
    """

    name: str
    op: str
    planned: str
    built: str
    kernel: str

    @property
    def as_planned(self) -> bool:
        """Whether it runs in the precision that was planned."""
        return self.built == self.planned


def openvino_layers(bundle: Bundle) -> list[CompiledLayer]:
    """Every planned layer of ``bundle`` as OpenVINO builds it on this machine.

    Raises:
        BundleError: a manifest without a plan. SessionError: OpenVINO is missing or refuses it.
    """
    name = str(bundle.model_path)
    return audit(OpenvinoSession(bundle.read(MODEL), threads=1, name=name), plan_of(bundle))


def plan_of(bundle: Bundle) -> list[dict[str, Any]]:
    """The plan in a bundle's manifest; :class:`BundleError` where there is none to be read."""
    plan = bundle.manifest.get("plan")
    keys = ("name", "op", "compute")
    if not isinstance(plan, list) or not all(
        isinstance(layer, dict) and all(isinstance(layer.get(key), str) for key in keys)
        for layer in plan
    ):
        raise BundleError(f"{bundle.path}: its manifest holds no plan of layers; export it again")
    return plan


def audit(session: OpenvinoSession, plan: Sequence[Mapping[str, Any]]) -> list[CompiledLayer]:
    """The layers of ``plan`` (``name``, ``op``, ``compute``) as ``session`` built them."""
    chains, built = session.chains(), session.layers()
    found = []
    for layer in plan:
        match = _match(chains.get(layer["name"], (layer["name"],)), built)
        precision = MISSING if match is None else match.precision
        found.append(
            CompiledLayer(
                layer["name"],
                layer["op"],
                layer["compute"],
                _PRECISIONS.get(precision, precision),
                "" if match is None else match.kernel,
            )
        )
    return found


def _match(chain: Sequence[str], built: Sequence[BuiltLayer]) -> BuiltLayer | None:
    """The layer that carries out the first member of ``chain`` which any layer carries out.

    The first, because the sum of two convolutions is the end of both their chains.
    """
    for name in chain:
        for layer in built:
            if name in layer.names:
                return layer
    return None


def fallbacks(layers: Sequence[CompiledLayer]) -> list[str]:
    """A line for each layer that is not as planned."""
    return [
        f"{layer.name}: planned {layer.planned}, runs {layer.built}"
        + (f" ({layer.kernel})" if layer.kernel else "")
        for layer in layers
        if not layer.as_planned
    ]
