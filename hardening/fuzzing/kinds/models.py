"""ONNX models and probes of a bundle whose maker means harm: the hashes fit."""

from __future__ import annotations

import json
from pathlib import Path

from ..kind import Kind, Reader
from ..mutators.protobuf import mutate_protobuf
from ..workshop import Workshop, entry_of


def _read_session(_workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime.session import OnnxSession

    image = np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        for optimize in (True, False):
            with OnnxSession(data, optimize=optimize, threads=1) as session:
                session.logits(image)

    return read


def _read_native(_workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime import native
    from qmdd.runtime.session import OnnxSession

    library, image = native.library_path(), np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        with OnnxSession(data, threads=1, library=library) as session:
            session.logits(image)

    return read


def _read_probes(workshop: Workshop, _scratch: Path) -> Reader:
    import numpy as np

    from qmdd.runtime.session import OnnxSession

    model, image = workshop.file("model.onnx"), np.zeros((1, 3, 32, 32), np.uint8)

    def read(data: bytes) -> None:
        with OnnxSession(model + data, optimize=False, threads=1) as session:
            session.run(image)

    return read


def _read_graph(workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.exporter.engine.inspect import inspect_bundle
    from qmdd.exporter.workload import layers_of_file
    from qmdd.runtime.bundle import manifest_bytes

    place = scratch / "bundle"
    place.mkdir()
    path = place / "model.onnx"
    held = json.loads(workshop.file("manifest.json"))
    kept = ("schema", "arch", "bits", "threshold", "input", "output")
    manifest = {**{key: held[key] for key in kept}, "target": "onnx"}

    def read(data: bytes) -> None:
        path.write_bytes(data)
        manifest["files"] = {"model.onnx": entry_of(data)}
        (place / "manifest.json").write_bytes(manifest_bytes(manifest))
        inspect_bundle(place)  # a bundle without a plan: made from the model
        layers_of_file(path, 64)

    return read


KINDS = (
    Kind(
        "onnx",
        "model.onnx, loaded and run by ONNX Runtime, optimiser on and off",
        lambda workshop: [workshop.file("model.onnx"), workshop.portable],
        _read_session,
        (mutate_protobuf,),
        seconds=60,
        cases=4_000,
    ),
    Kind(
        "onnx-native",
        "model.native.onnx, by ONNX Runtime with the native operators",
        lambda workshop: [workshop.file("model.native.onnx")],
        _read_native,
        (mutate_protobuf,),
        seconds=60,
        cases=10_000,
    ),
    Kind(
        "probes",
        "the probes beside a model (the end of a protocol buffer)",
        lambda workshop: [workshop.file("parity/probes.pb")],
        _read_probes,
        (mutate_protobuf,),
        seconds=60,
        cases=4_000,
    ),
    Kind(
        "onnx-graph",
        "model.onnx as qmdd inspect and estimate read it, by onnx",
        lambda workshop: [workshop.portable],
        _read_graph,
        (mutate_protobuf,),
        seconds=60,
        cases=4_000,
    ),
)
