"""Where a bundle comes from: hashes, versions, and the commands that make it again."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

from ...runtime.bundle import Bundle
from ...runtime.device.facts import Facts
from ...runtime.files import sha256_of
from ..errors import ExportError
from .read import whole

#: Operators that ``--allow-microsoft`` writes.
_MICROSOFT = "MatMulIntegerToFloat"


def provenance(bundle: Bundle) -> dict[str, Any]:
    """Plain data, all of it from the manifest, whose own hash stands beside it."""
    facts = Facts(bundle.manifest)
    files = bundle.manifest["files"]
    source = {
        key: facts.text("source", key) for key in ("checkpoint", "module", "sha256", "format")
    }
    return {
        "source": {key: value for key, value in source.items() if value},
        "files": [
            {"name": name, "bytes": entry["bytes"], "sha256": entry["sha256"]}
            for name, entry in sorted(files.items())
        ],
        "manifest_sha256": bundle.manifest_sha256,
        "versions": {
            "qmdd": facts.text("qmdd"),
            **{name: facts.text("tools", name) for name in sorted(facts.table("tools"))},
        },
        "passes": [
            {"name": item.text("pass"), "applied": whole(item, "applied")}
            for item in facts.objects("passes")[:100]
        ],
        "notes": list(facts.texts("notes"))[:200],
        "commands": _commands(bundle, facts),
    }


def _commands(bundle: Bundle, facts: Facts) -> list[dict[str, str]]:
    """What to type to get the same again, in order; ``BUNDLE`` stands for the folder."""
    told = [("make the bundle", shlex.join(_export(facts)) + " -o BUNDLE")]
    if "engine" in bundle.manifest:
        told.append(("build its engine", "qmdd build BUNDLE"))
    told += [
        ("compare it with its source", "qmdd verify BUNDLE --layers"),
        ("compare it with its golden results, without torch", "qmdd verify BUNDLE --golden"),
        ("measure it beside its twin", "qmdd bench BUNDLE"),
        ("make this report", "qmdd report BUNDLE -o report.html"),
    ]
    return [{"what": what, "command": command} for what, command in told]


def _export(facts: Facts) -> list[str]:
    module, name = facts.text("source", "module"), facts.text("source", "checkpoint")
    # A built-in checkpoint is named by its stem; another one is a file that the reader has.
    given = PurePath(name).stem if _is_builtin(facts.text("source", "sha256")) else name
    words = ["qmdd", "export"]
    words += ["--module", module] if module else ["--checkpoint", given]
    words += ["--target", facts.text("target")]
    return words + _form(facts)


def _is_builtin(digest: str) -> bool:
    from ...models.zoo import builtin_checkpoints

    return any(sha256_of(path) == digest for path in builtin_checkpoints())


def _form(facts: Facts) -> list[str]:
    """Options of ``qmdd export`` that were not left at the target's own choice."""
    held = {
        "weights": facts.text("weights"),
        "opset": whole(facts, "opset"),
        "precision": facts.text("precision"),
    }
    usual = _usual(facts.text("target"))
    words = []
    for option, value in held.items():
        if value and usual and value != usual[option]:
            words += [f"--{option}", str(value)]
    return [*words, "--allow-microsoft"] if _MICROSOFT in facts.table("nodes") else words


def _usual(target: str) -> dict[str, Any]:
    """What the target takes by default; empty where that cannot be told."""
    try:
        from ..storage import choose_storage
        from ..targets import find_target

        storage, opset, precision = choose_storage(find_target(target), None, None, None)
    except (ExportError, ModuleNotFoundError):
        return {}
    return {"weights": storage, "opset": opset, "precision": precision}
