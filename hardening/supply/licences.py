"""``python -m hardening.supply.licences``: docs/licences.md, as packages describe themselves.

A package's licence stands in its metadata: as an expression (PEP 639), as a classifier, or as a
text, whose first line is told. Whoever ships qmdd with what it depends on begins here, and reads
the texts themselves in the packages.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import click
from packaging.markers import default_environment
from packaging.requirements import Requirement

from .lock import CONSTRAINTS, ROOT, pins

PAGE = ROOT / "docs" / "licences.md"
#: What people install; dev and docs are for those who work on qmdd itself.
EXTRAS = ("runtime", "demo", "video", "plots", "openvino", "export", "report", "qonnx", "rtx")
#: Their metadata says nothing; their repositories do.
_TOLD = {"atheris": "Apache-2.0"}
MORE = ("scan", "ray", "train")
_HEAD = """# Licences

qmdd is under the [Apache License 2.0](../LICENSE). It contains no other project's code; what it
depends on is installed beside it, under these licences, as each package's own metadata states them
(made by `python -m hardening.supply.licences`, x86-64, Python 3.11). *For* names the extras that
bring a package; *dev* is for working on qmdd, and no part of an installation.

**NVIDIA's packages are proprietary**: they are optional, installed by whoever wants them, and never
a part of what this project distributes.

| package | version | licence | for |
|---|---|---|---|
"""


def licence(name: str) -> str:
    """What an installed package says of its licence, in a few words."""
    found = metadata.metadata(name)
    if expression := _first(found, "License-Expression"):
        return expression
    classified = [
        line.rpartition(" :: ")[2].removesuffix(" License")
        for line in found.get_all("Classifier") or ()
        if line.startswith("License :: ") and line.count(" :: ") > 1
    ]
    if classified:
        return ", ".join(classified)
    text = _first(found, "License")
    return text.splitlines()[0][:60] if text else _TOLD.get(name, "not stated")


def _first(found: metadata.PackageMetadata, field: str) -> str:
    return str((found.get_all(field) or [""])[0]).strip()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(extra: str) -> set[str]:
    """Plain names of all that ``qmdd[extra]`` brings on this machine; without extra, ``""``."""
    waiting, seen = [("qmdd", extra)], set()
    while waiting:
        item = waiting.pop()
        if item in seen:
            continue
        seen.add(item)
        name, chosen = item
        try:
            wanted = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # not for this machine, or by another name here
            continue
        for line in wanted:
            requirement = Requirement(line)
            surroundings: dict[str, str] = {"extra": chosen}
            surroundings.update({key: str(value) for key, value in default_environment().items()})
            if requirement.marker and not requirement.marker.evaluate(surroundings):
                continue
            waiting.append((_plain(requirement.name), ""))
            waiting += [(_plain(requirement.name), more) for more in sorted(requirement.extras)]
    return {name for name, _ in seen} - {"qmdd"}


def page() -> str:
    """The page's text."""
    always = brought_by("")
    extras = {extra: brought_by(extra) for extra in (*EXTRAS, *MORE)}
    rows = []
    for pin in pins(CONSTRAINTS.read_text(encoding="utf-8")):
        plain = _plain(pin.name)
        try:
            if metadata.version(pin.name).split("+")[0] != pin.version:
                continue  # for another Python
        except metadata.PackageNotFoundError:
            continue
        by = ["all"] if plain in always else [name for name, has in extras.items() if plain in has]
        rows.append(
            f"| {pin.name} | {pin.version} | {licence(pin.name)} | {', '.join(by) or 'dev'} |\n"
        )
    return _HEAD + "".join(rows)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--check", is_flag=True, help="Write nothing; fail if the page is another.")
def main(check: bool) -> None:
    """Write docs/licences.md."""
    text = page()
    if check:
        raise SystemExit(PAGE.read_text(encoding="utf-8") != text)
    Path(PAGE).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
