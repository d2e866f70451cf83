"""What a user or a script writes: recipes, widths by layer, lists of hosts."""

from __future__ import annotations

import json
from pathlib import Path

from ..kind import Kind, NotRight, Reader
from ..mutators.json_text import mutate_json
from ..mutators.plain import mutate_bytes
from ..mutators.words import mutate_words
from ..workshop import Workshop

_HOSTS = b"""# devices
jetson@192.168.1.20
box:/opt/qmdd   # the second
ssh://pi@[fe80::1%eth0]:2222/srv/qmdd

orin-nano
"""


def _recipes(_workshop: Workshop) -> list[bytes]:
    from importlib.resources import files

    folder = files("qmdd.calibration") / "recipes"
    return [path.read_bytes() for path in folder.iterdir() if path.name.endswith(".toml")]


def _read_recipe(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.calibration.recipe import load_recipe, recipe_from_dict

    path = scratch / "recipe.toml"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        recipe = load_recipe(path)
        # A run keeps it as JSON, and goes on from that.
        if recipe_from_dict(json.loads(json.dumps(recipe.to_dict()))) != recipe:
            raise NotRight("a recipe that comes back as another one")

    return read


def _read_widths(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.calibration.layer_bits import load_layer_bits
    from qmdd.models import DetectorConfig

    path = scratch / "widths.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        config = DetectorConfig(layer_bits=load_layer_bits(path))
        if DetectorConfig.from_json(config.to_json()) != config:
            raise NotRight("widths that come back as others")

    return read


def _read_hosts(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.deploy.connection import ssh_arguments
    from qmdd.runtime.deploy.hosts import distinct, read_hosts
    from qmdd.runtime.deploy.outcome import report_path

    path = scratch / "hosts.txt"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for host in distinct(read_hosts(path)):
            words = ssh_arguments(host)
            if host.destination.startswith("-") or words[-2:] != ["--", host.destination]:
                raise NotRight(f"{host.destination!r} could be an option of ssh")
            if any(not c.isprintable() or c in " '\"$`;&|<>\\" for c in host.destination):
                raise NotRight(f"{host.destination!r} means something to a shell")
            if report_path(scratch, host).parent.parent != scratch:
                raise NotRight(f"{host.label!r} leads out of the bundle")

    return read


_WIDTHS = [
    b'{"stages.0.0.conv1": 4, "stages.1.0.conv1": 8}',
    b'{"layer_bits": {"stages.0.0.conv1": 1}, "budget": 2.5}',
]

KINDS = (
    Kind(
        "recipe",
        "recipes (TOML) of qmdd train",
        _recipes,
        _read_recipe,
        (mutate_words,),
        guided=("qmdd.calibration.recipe", "qmdd.models.config", "tomllib"),
        cases=80_000,
    ),
    Kind(
        "widths",
        "files of widths by layer (JSON) of qmdd train, calibrate",
        lambda _workshop: _WIDTHS,
        _read_widths,
        (mutate_json,),
        guided=("qmdd.calibration.layer_bits", "qmdd.models.config"),
        cases=60_000,
    ),
    Kind(
        "hosts",
        "lists of hosts of qmdd deploy",
        lambda _workshop: [_HOSTS],
        _read_hosts,
        (mutate_words, mutate_bytes),
        guided=("qmdd.runtime.deploy.hosts",),
        cases=60_000,
    ),
)
