"""Bundles: the manifest and all that is read of it; any other file, changed or made anew."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..kind import Kind, Reader, WrongHash
from ..mutators.json_text import mutate_json
from ..mutators.plain import mutate_bytes
from ..mutators.tensors import mutate_safetensors
from ..mutators.words import mutate_words
from ..workshop import ENGINE_FOLDER, Workshop, entry_of

_MANIFEST = "manifest.json"


def copy_of(bundle: Path, place: Path) -> Path:
    """The bundle's files again, as links to them; what is replaced is replaced there only."""
    for folder, _, names in os.walk(bundle):
        inside = place / os.path.relpath(folder, bundle)
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            (inside / name).symlink_to(Path(folder, name).resolve())
    for folder, _, names in os.walk(place):
        for name in names:
            path = Path(folder, name)
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)
    return place


def _read_manifest(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.output import print_json
    from qmdd.exporter.report.provenance import provenance
    from qmdd.runtime.bundle import Bundle

    place = copy_of(workshop.bundle, scratch / "bundle")
    right = {name: entry_of(workshop.file(name)) for name in workshop.names()}
    look = _manifest_reader()

    def read(data: bytes) -> None:
        (place / _MANIFEST).write_bytes(data)
        bundle = Bundle.open(place)
        for name, entry in bundle.manifest["files"].items():
            held = right.get(name) or entry_of((place / name).read_bytes())
            if any(entry[key] != held[key] for key in held):
                raise WrongHash(f"accepted with another entry of {name}")
        look(bundle)
        if len(data) % 32 == 0:  # it reads all built-in checkpoints
            print_json(provenance(bundle))

    return read


def _manifest_reader() -> Callable[[Any], None]:
    """Everything that looks at a manifest which was accepted; each may refuse it."""
    from qmdd.cli.errors import message_of
    from qmdd.cli.output import print_json
    from qmdd.exporter.engine.build import engine_target, plan_of
    from qmdd.exporter.report import proof, sizes, speed
    from qmdd.runtime.bundle import Bundle
    from qmdd.runtime.comparing.facts import compared_facts, device_rows, side_of_bundle
    from qmdd.runtime.demo.answer import _sees_npr
    from qmdd.runtime.device.needs import bundle_needs
    from qmdd.runtime.doctor import diagnose
    from qmdd.runtime.golden_tiers import _own_budget
    from qmdd.runtime.known_sets import generators_from_record
    from qmdd.runtime.preprocess import kept
    from qmdd.runtime.sessions import runtime_of, sides_for

    def all_of(bundle: Bundle) -> None:
        """Each by itself: what one refuses the next one still reads."""
        side = side_of_bundle(bundle)
        print_json(compared_facts(side, side))
        print_json({"proof": proof.recorded(bundle), "sizes": sizes.sizes(bundle)})
        device_rows(bundle)
        speed.devices(bundle)
        _sees_npr(bundle)
        readers: list[Callable[[], object]] = [
            lambda: sizes.paper(bundle),
            lambda: plan_of(bundle),
            lambda: engine_target(bundle, None),
            lambda: diagnose({}, bundle=bundle_needs(bundle)),
            lambda: _own_budget(bundle),
            lambda: generators_from_record(_source(bundle).get("generators")),
            lambda: kept(100, 200, **sides_for(bundle, [runtime_of(bundle, "onnxruntime")])),
        ]
        for one in readers:
            try:
                one()
            except Exception as error:
                if message_of(error).startswith("unexpected"):
                    raise

    return all_of


def _source(bundle: Any) -> dict[str, Any]:
    found = bundle.manifest.get("source")
    return found if isinstance(found, dict) else {}


def _named(workshop: Workshop) -> list[bytes]:
    """Each file of the bundle, with its name before it."""
    return [name.encode() + b"\n" + workshop.file(name) for name in workshop.names()]


def mutate_named(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """The bytes behind the name."""
    name, _, rest = data.partition(b"\n")
    return name + b"\n" + mutate_bytes(rng, rest, [seed.partition(b"\n")[2] for seed in seeds])


def _read_file(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.bundle import Bundle

    place = copy_of(workshop.bundle, scratch / "bundle")
    right = {name: workshop.file(name) for name in workshop.names()}

    def read(data: bytes) -> None:
        name, _, held = data.partition(b"\n")
        path = place / name.decode()
        path.write_bytes(held)
        try:
            Bundle.open(place)
        finally:
            path.write_bytes(right[name.decode()])
        if held != right[name.decode()]:
            raise WrongHash(f"accepted with another {name.decode()}")

    return read


def _read_golden(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.golden import read_golden
    from qmdd.runtime.parity import LayerResult, TierResult

    path = scratch / "golden.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        golden = read_golden(path)
        tier = TierResult("strict", layers=[LayerResult(name) for name in golden.layers])
        for logit, codes in zip(golden.logits, golden.codes, strict=True):
            found = {f"{name}.codes": held for name, held in codes.items()}
            tier.add(logit.reshape(1), codes, {"logit": logit.reshape(1), **found})
        if tier.wrong_codes:
            raise WrongHash("codes that differ from themselves")

    return read


def _opened(workshop: Workshop, scratch: Path) -> Any:
    """The bundle without a look at its hashes: what its maker changed has the right ones."""
    from qmdd.runtime.bundle import Bundle

    place = copy_of(workshop.bundle, scratch / "bundle")
    return Bundle(place, json.loads(workshop.file(_MANIFEST)))


def _read_sidecar(workshop: Workshop, scratch: Path) -> Reader:
    import numpy as np

    from qmdd.cli.output import print_json
    from qmdd.runtime.bundle import MODEL
    from qmdd.runtime.device.facts import Facts
    from qmdd.runtime.device.judge_gpu import judge_engine
    from qmdd.runtime.device.needs import bundle_needs
    from qmdd.runtime.engine import Machine, read_record, refusal
    from qmdd.runtime.golden import Golden
    from qmdd.runtime.golden_tiers import _fitting
    from qmdd.runtime.preprocess import kept
    from qmdd.runtime.sessions import TENSORRT, sides_for

    bundle = _opened(workshop, scratch)
    path = bundle.path / ENGINE_FOLDER / "engine.json"
    image = np.zeros((3, 32, 32), np.uint8)
    golden = Golden([image], np.zeros(1, np.float32), [{}])
    machine = Machine("tensorrt_rtx", "1.7.0.1", "8.6", "Linux", "x86_64")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        record = read_record(bundle)
        if record.onnx_sha256 != bundle.manifest["files"][MODEL]["sha256"]:
            raise WrongHash("the record of another model")
        refusal(record, machine)
        list(judge_engine(Facts({}), bundle_needs(bundle)))
        print_json(dataclasses.asdict(record))
        kept(100, 200, **sides_for(bundle, [TENSORRT]))
        _fitting(bundle, golden)

    return read


def _read_layers(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.cli.output import print_json
    from qmdd.exporter.engine.inspect import inspect_bundle
    from qmdd.exporter.engine.layers import layers_from_inspector, layers_from_log

    bundle = _opened(workshop, scratch)
    path = bundle.path / ENGINE_FOLDER / "layers.json"
    name = f"{ENGINE_FOLDER}/layers.json"

    def read(data: bytes) -> None:
        if data.startswith(b"Layers:"):
            layers_from_log(data.decode("utf-8", "replace"))
            return
        if data.startswith(b'{"Layers"'):
            layers_from_inspector(data.decode("utf-8", "replace"))
            return
        path.write_bytes(data)
        bundle.manifest["files"][name] = entry_of(data)
        (bundle.path / _MANIFEST).write_bytes(json.dumps(bundle.manifest).encode())
        print_json(inspect_bundle(bundle.path).to_dict())

    return read


def _layer_seeds(workshop: Workshop) -> list[bytes]:
    log = (
        b"Layers:\nName: a, LayerType: kernel, Inputs: [ { Name: x, Dimensions: [1,3,32,32], Format"
        b": Linear, Datatype: Int8 }], Constants: [], Outputs: [ { Name: y, Dimensions: [1,4,16,16]"
        b", Datatype: Float }], Tactic: 1, TacticName: k, StreamId: 0, Metadata:[ONNX Layer: n]\n"
    )
    told = {
        "Layers": [
            {
                "Name": "a + b",
                "LayerType": "CaskConvolution",
                "Inputs": [{"Name": "x", "Dimensions": [1, 3, 8, 8], "Format/Datatype": "Int8"}],
                "Outputs": [{"Name": "y", "Dimensions": [1, 4, 8, 8], "Datatype": "Half"}],
                "Weights": {"Type": "Int8", "Count": 108},
                "ParameterType": "Convolution",
                "Metadata": "[ONNX Layer: a]",
            }
        ]
    }
    return [
        workshop.file(f"{ENGINE_FOLDER}/layers.json"),
        workshop.file(f"{ENGINE_FOLDER}/layers.json"),
        log,
        json.dumps(told).encode(),
    ]


def mutate_layers(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """JSON, or the builder's log."""
    change = mutate_words if data.startswith(b"Layers:") else mutate_json
    return change(rng, data, seeds)


KINDS = (
    Kind(
        "manifest",
        "a bundle's manifest, by Bundle.open and every reader of what it says",
        lambda workshop: [workshop.file(_MANIFEST)],
        _read_manifest,
        (mutate_json,),
        guided=(
            *("qmdd.runtime.bundle", "qmdd.runtime.engine", "qmdd.runtime.comparing.facts"),
            *("qmdd.exporter.report", "qmdd.exporter.plan", "qmdd.runtime.device"),
        ),
        cases=30_000,
    ),
    Kind(
        "bundle-file",
        "any listed file of a bundle changed: must be refused",
        _named,
        _read_file,
        (mutate_named,),
        cases=60_000,
    ),
    Kind(
        "golden",
        "golden results (safetensors) with a manifest made to fit",
        lambda workshop: [workshop.file("parity/golden.safetensors")],
        _read_golden,
        (mutate_safetensors,),
        cases=40_000,
    ),
    Kind(
        "sidecar",
        "an engine's sidecar (JSON)",
        lambda workshop: [workshop.file(f"{ENGINE_FOLDER}/engine.json")],
        _read_sidecar,
        (mutate_json,),
        guided=("qmdd.runtime.engine", "qmdd.runtime.golden_tiers", "qmdd.runtime.device"),
        cases=60_000,
    ),
    Kind(
        "layers",
        "an engine's layer table (JSON), TensorRT's log and its inspector's JSON",
        _layer_seeds,
        _read_layers,
        (mutate_layers,),
        guided=("qmdd.exporter.engine", "qmdd.exporter.plan"),
        cases=20_000,
    ),
)
