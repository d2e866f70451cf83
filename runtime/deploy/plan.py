"""A deployment's commands, without running any: what ``--dry-run`` shows.

They come from the functions that the real run takes them from; what only the device knows (its
home, the environment's key) is written as ``<...>``.
"""

from __future__ import annotations

import posixpath
from typing import Any

from ..bundle import Bundle
from ..device.judge_gpu import TENSORRT
from ..device.needs import TargetNeeds
from .connection import bootstrap, ssh_arguments
from .fitness import extras_of
from .hosts import Host
from .layout import Layout
from .options import Options
from .payload import bundle_items, further_wheels
from .wheel import pack_wheel


def plan(bundle: Bundle, host: Host, need: TargetNeeds, options: Options) -> list[dict[str, Any]]:
    """The steps in their order.

    Each has ``step``, ``there`` (whether it runs on the device), ``what`` in words, and
    ``command``: a program and its arguments, empty where files are written only.

    Raises:
        DeployError: a wheel or folder of wheels that is none.
    """
    root = host.folder if host.folder.startswith(("/", "~")) else f"<home>/{host.folder}"
    layout = Layout(root, "<release>", "<environment>")
    items = bundle_items(bundle)
    wheel = options.wheel.name if options.wheel else pack_wheel()[0]
    wheels = [wheel, *(item.name for item in further_wheels(options.wheels))]
    shell = bootstrap(options.python)
    ssh = [
        *ssh_arguments(host, config=options.config, ask=options.ask, patience=options.patience),
        shell,
    ]
    files = f"{len(items):,} files of {bundle.path}, {sum(item.size for item in items):,} bytes"

    def step(name: str, what: str, command: list[str] | None = None, there: bool = True) -> None:
        found.append({"step": name, "there": there, "what": what, "command": command or []})

    found: list[dict[str, Any]] = []
    step("connect", "one connection; all that follows goes through it as data", ssh, there=False)
    step("look", "Python, system, GPU, TensorRT, memory, disk, clock")
    step("copy", f"what it lacks of {files}, into {posixpath.join(root, 'objects')}")
    system = need.backend == TENSORRT
    make = layout.make_env(options.python, system_packages=system)
    step("environment", f"if it has none for {', '.join(wheels)}", make)
    pinned = options.constraints is not None
    install = layout.install(
        wheel, extras_of(need), index=options.wheels is None, constraints=pinned
    )
    step("environment", f"and install into it, in {layout.wheels}", install)
    step("release", f"links to these files in {layout.bundle}")
    if need.backend:
        step(
            "build",
            "unless the bundle's engine is for this very device",
            layout.build(options.side, options.batch),
        )
    step("verify", "0 wrong codes, or the deployment ends here", layout.verify(options.runtime))
    if options.bench_seconds:
        measure = layout.bench(options.bench_seconds, options.runtime)
        step("bench", "measure", measure)
    current = posixpath.join(root, "current")
    step("switch", f"replace the link {current} in one step; remove what is too old")
    step("report", f"write {bundle.path}/devices", there=False)
    return found
