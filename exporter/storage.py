"""How weights are held, at which opset and precision: the options resolved against each other."""

from __future__ import annotations

from .errors import ExportError
from .targets import Target

PRECISIONS = ("int8", "int4")
#: Opset of an engine's model that holds INT4 constants.
_INT4_OPSET = 21


def choose_storage(
    target: Target, weights: str | None, opset: int | None, precision: str | None = None
) -> tuple[str, int, str]:
    """Resolve what was asked for; the only place where the defaults live.

    Args:
        target: what is lowered for.
        weights: ``int2``, ``int4``, ``int8``, or the target's default.
        opset: or the target's default.
        precision: of an engine, ``int8`` or ``int4``; or ``int8``.

    Returns:
        Storage, opset and precision.

    Raises:
        ExportError: what does not exist, or does not go together; says what does.
    """
    from .passes.pack_weights import STORAGES

    if weights is not None and weights not in STORAGES:
        raise ExportError(f"no weight storage {weights!r}; there are {', '.join(STORAGES)}")
    if target.engine is not None:
        return _of_engine(target, weights, opset, precision or "int8")
    if precision is not None:
        raise ExportError(
            f"target {target.name} has no --precision: it is for engines (see qmdd targets); "
            "leave it out"
        )
    storage = weights or "own"
    if storage != "own" and not _packs(target):
        raise ExportError(
            f"target {target.name} keeps weights as they are traced, not as {storage}; "
            "leave --weights out"
        )
    return storage, _opset_of(target, storage, opset), "int8"


def check_microsoft(target: Target, asked: bool) -> None:
    """:class:`ExportError` where ONNX Runtime's own operators were asked for and are of no use."""
    if asked and target.form != "cpu":
        raise ExportError(
            f"target {target.name} writes no operators of com.microsoft; leave --allow-microsoft "
            "out, or choose --target cpu"
        )


def _packs(target: Target) -> bool:
    """Whether the target's passes store weights in the width that was asked for."""
    return bool({"pack_weights", "matmul_conv"} & set(target.passes))


def _opset_of(target: Target, storage: str, opset: int | None) -> int:
    from .passes.pack_weights import MIN_OPSET, opset_for

    chosen = _packs(target) and storage != "own"  # packed bytes are held at any opset
    usual = opset_for(storage) if chosen else target.opset
    version = usual if opset is None else opset
    low = _within(target, version)
    needed = {"int2": MIN_OPSET[2], "int4": MIN_OPSET[4]}.get(storage, low)
    if version < needed:
        raise ExportError(
            f"weights as {storage} need opset {needed}, not {version}; leave --weights out: packed "
            "bytes have the same size at any opset"
        )
    return version


def _of_engine(
    target: Target, weights: str | None, opset: int | None, precision: str
) -> tuple[str, int, str]:
    assert target.engine is not None  # noqa: S101 - the caller has looked
    engine = target.engine
    if precision not in engine.precisions:
        raise ExportError(
            f"target {target.name} has no precision {precision}; it has "
            f"{', '.join(engine.precisions)}"
        )
    held = "int4" in engine.storages
    storage = weights or ("int4" if precision == "int4" and held else "int8")
    narrow = storage in engine.storages and storage != "int8"
    products = precision == "int4" and not held
    needed = _INT4_OPSET if narrow or products else target.opset
    version = needed if opset is None else opset
    _within(target, version)
    if version < needed:
        what = f"weights as {storage}" if narrow else "INT4 products"
        raise ExportError(f"{what} need opset {needed}, not {version}; leave --opset out")
    return storage, version, precision


def _within(target: Target, version: int) -> int:
    low, high = target.opsets
    if not low <= version <= high:
        raise ExportError(
            f"target {target.name} is written at opset {low} to {high}, not {version}; "
            "choose another --opset"
        )
    return low
