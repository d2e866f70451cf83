"""Devices, the other end of ssh: what one answers, what lies on it, what it says of itself."""

from __future__ import annotations

import contextlib
import io
import json
import random
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..kind import Kind, NotRight, Reader
from ..mutators.json_text import mutate_json, mutate_json_lines
from ..mutators.words import mutate_words
from ..workshop import Workshop
from .bundles import copy_of
from .records import _bench

_GREETING = b"Welcome\n\nqmdd-agent 3.11\n"
#: Each line of a case after its first, which names what is asked of the device.
_DOES = ("deploy", "rollback", "history", "doctor")


def _connection(stdin: Any, stdout: Any) -> Callable[..., Any]:
    """A connection's class whose ssh is a pair of streams."""
    from qmdd.runtime.deploy.connection import Connection
    from qmdd.runtime.errors import DeployError

    class Piped(Connection):
        def __init__(self, host: Any, **_options: object) -> None:
            self.host = host
            self._said = io.BytesIO(b"ssh says nothing\n")  # type: ignore[assignment]
            self._process = types.SimpleNamespace(  # type: ignore[assignment]
                stdin=stdin,
                stdout=stdout,
                poll=lambda: 255,
                wait=lambda _seconds=None: 255,
                kill=lambda: None,
            )
            self._sending, self._closed = threading.Lock(), threading.Event()
            self.python_version = self._greet("python3")
            self._send_agent()
            if "ready" not in self._answer():
                raise DeployError("what answers there is not the agent")

    return Piped


class _Device:
    """Answers as a device does that does what it is asked."""

    def __init__(self, verified: str, benched: str) -> None:
        self.said = [_GREETING, b'{"ready": 7}\n']
        self._lines = [line + b"\n" for line in _GREETING.split(b"\n")[:-1]] + [b'{"ready": 7}\n']
        self._printed = {"verify": verified, "bench": benched}

    def write(self, data: bytes) -> None:
        """A request; what is no JSON (the agent itself, a sign of life) asks for nothing."""
        with contextlib.suppress(ValueError):
            asked = json.loads(data.partition(b"\n")[0])
            if isinstance(asked, dict):
                line = json.dumps({"ok": True, **self._answer(asked)}).encode() + b"\n"
                self._lines.append(line)
                self.said.append(line)

    def flush(self) -> None:
        """As a stream has it."""

    def close(self) -> None:
        """As a stream has it."""

    def readline(self, _most: int) -> bytes:
        """The next line."""
        return self._lines.pop(0) if self._lines else b""

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        release = {"previous": "r1", "environment": "e1", "arch": "resnet23", "bits": 2}
        fixed: dict[str, dict[str, Any]] = {
            "open": {"root": "/home/u/qmdd", "free": 1 << 40},
            "facts": {"facts": _facts()},
            "releases": {"releases": {"r1": release, "r2": release}, "current": "r2"},
            "have": {"have": {}},
            "list": {"names": ["e1", "e2"]},
            "read": {"data": "e30="},
            "usable": {"usable": True},
            "manifest": {"wrong": []},
        }
        if asked["do"] == "run":
            words = asked["arguments"]
            said = next((text for word, text in self._printed.items() if word in words), "")
            return {"rc": 0, "out": said}
        return fixed.get(asked["do"], {})


def _facts() -> dict[str, Any]:
    """A Jetson's, in part."""
    return {
        "python": {"version": "3.10.12", "executable": "/usr/bin/python3", "venv": True,
                   "ensurepip": True, "bits": 64, "system": "/usr/bin/python3", "others": {}},
        "system": {"system": "Linux", "machine": "aarch64", "libc": "glibc",
                   "libc_version": "2.35", "distribution": "Ubuntu 22.04"},
        "processor": {"name": "ARMv8", "cores": 6, "instructions": ["dotprod"]},
        "jetson": {"model": "NVIDIA Jetson Orin Nano", "l4t": "36.4.0"},
        "memory": {"total": 8 << 30, "available": 6 << 30, "limit": 7 << 30, "swap_free": 0},
        "disk": {"free": 1 << 36, "folder": "/home/u", "files_free": 1e6, "writable": True},
        "cuda": {"gpus": [{"name": "Orin", "compute_capability": "8.7", "memory": 8 << 30}]},
        "tensorrt": {"version": "10.3.0", "python": {"version": "10.3.0"},
                     "system": {"version": "10.3.0"}, "trtexec": "/usr/bin/trtexec"},
        "onnxruntime": {"version": "1.23.0", "providers": ["CPUExecutionProvider"]},
        "packages": {"numpy": "2.0", "pillow": "11", "qmdd": "0.1.0"},
        "libraries": {"missing": {"/usr/lib/x.so": ["liby.so"]}},
        "power": {"mode": "15W", "modes": {"0": "MAXN", "1": "15W"}, "celsius": 50.0,
                  "throttled": 5, "scaling_min_freq": 1e6, "scaling_max_freq": 2e6},
        "clock": {"unix": 1.8e9, "synchronised": True},
        "user": {"home": "/home/u", "home_writable": True, "umask": "0022"},
        "tools": {"qmdd_native": "yes"},
        "failed": {"wifi": "OSError: no"},
    }  # fmt: skip


@contextlib.contextmanager
def _reached_by(connect: Callable[..., Any]) -> Iterator[None]:
    """Everything that connects gets ``connect``."""
    from qmdd.runtime.deploy import deployment, look, releases

    modules: tuple[Any, ...] = (deployment, look, releases)
    before = [module.Connection for module in modules]
    for module in modules:
        module.Connection = connect
    try:
        yield
    finally:
        for module, was in zip(modules, before, strict=True):
            module.Connection = was


def _actions(workshop: Workshop, scratch: Path) -> dict[str, Callable[[], None]]:
    """What is asked of a device, each with all that is then made of its answers."""
    import click

    from qmdd.cli.deployment import print_outcome
    from qmdd.cli.main import cli
    from qmdd.exporter.target_needs import all_needs, needs_of
    from qmdd.exporter.targets import find_target
    from qmdd.runtime.bundle import Bundle
    from qmdd.runtime.deploy.deployment import deploy
    from qmdd.runtime.deploy.hosts import Host
    from qmdd.runtime.deploy.look import look_at
    from qmdd.runtime.deploy.options import Options
    from qmdd.runtime.deploy.outcome import write_report
    from qmdd.runtime.deploy.releases import rollback
    from qmdd.runtime.doctor import diagnose

    bundle = Bundle.open(copy_of(workshop.bundle, scratch / "bundle"))
    host, wheel = Host("user@device"), scratch / "qmdd-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"no wheel")
    need = needs_of(find_target(bundle.target))
    options = Options(wheel=wheel, bench_seconds=1.0)

    def deployed() -> None:
        outcome = deploy(bundle, host, need, options)
        if outcome.passed:
            write_report(bundle.path, outcome)
        print_outcome(outcome)
        json.dumps(outcome.to_dict())
        if outcome.log:
            Path(outcome.log).unlink()
        if outcome.error.startswith("unexpected"):
            raise NotRight(outcome.error)

    def rolled_back() -> None:
        json.dumps(rollback(host).to_dict())

    def listed() -> None:
        for more in ([], ["--json"]):
            from qmdd.cli.rollback import command

            with contextlib.suppress(click.exceptions.Exit):
                command.main(
                    ["user@device", "--list", *more],
                    standalone_mode=False,
                    parent=click.Context(cli),
                )

    def diagnosed() -> None:
        found = diagnose(look_at(host), targets=all_needs(), now=time.time())
        json.dumps(found.to_dict())

    actions = (deployed, rolled_back, listed, diagnosed)
    return dict(zip(_DOES, actions, strict=True))


def _answers(workshop: Workshop) -> list[bytes]:
    """What a good device says to each."""
    import tempfile

    from qmdd.runtime.golden_check import check_golden

    path = workshop.folder / "answers.json"
    if not path.exists():
        verified = check_golden(workshop.bundle, threads=1).to_dict()
        told = []
        with tempfile.TemporaryDirectory() as scratch:
            actions = _actions(workshop, Path(scratch))
            for what, act in actions.items():
                device = _Device(json.dumps(verified), json.dumps(_bench(workshop)))
                with _reached_by(_connection(device, device)):
                    if what == "history":
                        with contextlib.suppress(Exception):  # the second one finds no device
                            act()
                    else:
                        act()
                told.append(what + "\n" + b"".join(device.said).decode())
        path.write_text(json.dumps(told), encoding="utf-8")
    return [text.encode() for text in json.loads(path.read_text(encoding="utf-8"))]


def _read_answers(workshop: Workshop, scratch: Path) -> Reader:
    actions = _actions(workshop, scratch)

    def read(data: bytes) -> None:
        what, _, said = data.partition(b"\n")
        act = actions.get(what.decode("latin-1"), actions["deploy"])

        def connect(host: Any, **options: object) -> Any:
            return _connection(io.BytesIO(), io.BytesIO(said))(host, **options)

        with _reached_by(connect):
            act()

    return read


def _mutate_answers(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One answer; that of a program which was run is JSON in JSON."""
    first, _, said = data.partition(b"\n")
    lines = said.split(b"\n")
    at = rng.randrange(len(lines))
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        held = json.loads(lines[at])
        if rng.random() < 0.8 and held["out"].startswith("{"):
            held["out"] = mutate_json(rng, held["out"].encode(), ()).decode("utf-8", "replace")
            lines[at] = json.dumps(held).encode()
            return first + b"\n" + b"\n".join(lines)
    return first + b"\n" + mutate_json_lines(rng, said, [s.partition(b"\n")[2] for s in seeds])


def _read_facts(workshop: Workshop, _scratch: Path) -> Reader:
    from qmdd.exporter.target_needs import all_needs
    from qmdd.runtime.bundle import Bundle
    from qmdd.runtime.deploy.fitness import judge, native_platform
    from qmdd.runtime.device.needs import bundle_needs
    from qmdd.runtime.doctor import diagnose
    from qmdd.runtime.errors import DeployError

    bundle = Bundle.open(workshop.bundle)
    needs, targets = bundle_needs(bundle), all_needs()
    some = [one for one in targets if one.backend][:3]

    def read(data: bytes) -> None:
        plain = json.loads(data)
        found = diagnose(plain, bundle=needs, targets=targets[::7], now=1.8e9)
        json.dumps(found.to_dict())
        if isinstance(plain, dict):
            native_platform(plain)
            for need in some:
                with contextlib.suppress(DeployError):
                    judge(bundle, plain, need, 1.8e9)

    return read


def _facts_reader(workshop: Workshop, scratch: Path) -> Reader:
    """JSON that is none never gets that far: the connection refuses it."""
    inner = _read_facts(workshop, scratch)

    def read(data: bytes) -> None:
        try:
            json.loads(data)
        except (ValueError, RecursionError) as error:
            raise OSError("not JSON") from error
        inner(data)

    return read


_RELEASE = {"release": "r1", "previous": None, "environment": "e1", "manifest_sha256": "0" * 64}


def _agent_seeds(workshop: Workshop) -> list[bytes]:
    asked = [
        {"do": "releases"},
        {"do": "manifest", "folder": ["releases", "r1", "bundle"], "name": "manifest.json"},
        {"do": "list", "path": ["envs"]},
        {"do": "have", "objects": {"0" * 64: 9}},
        {"do": "put", "name": "0" * 64, "size": 4, "offset": 0, "count": 4},
        {"do": "read", "path": ["releases", "r1", "deployed.json"]},
    ]
    lines = b"\n".join(json.dumps(one).encode() for one in asked[:5]) + b"\nabcd\n"
    return [
        b"deployed\n" + json.dumps(_RELEASE).encode(),
        b"manifest\n" + workshop.file("manifest.json"),
        b"requests\n" + lines,
        b"requests\n" + json.dumps(asked[5]).encode() + b"\n",
    ]


def _read_agent(_workshop: Workshop, scratch: Path) -> Reader:
    from qmdd.runtime.deploy.agent import Agent, Gone

    class Quiet(Agent):
        """Hears what it is given, and does nothing that reaches beyond its folder."""

        def fill(self, patience: float = 0.0) -> bool:
            raise Gone

        def say(self, **answer: object) -> None:
            json.dumps(answer)

        def nothing(self, **_asked: object) -> dict[str, Any]:
            return {}

        do_open = do_run = do_facts = do_write = do_point = nothing  # type: ignore[assignment]
        do_link = do_remove = do_keep_only = do_sweep = nothing  # type: ignore[assignment]

    root = scratch / "device"
    for name in ("objects", "releases/r1/bundle", "envs/e1"):
        (root / name).mkdir(parents=True)
    places = {
        b"deployed": "releases/r1/deployed.json",
        b"manifest": "releases/r1/bundle/manifest.json",
    }

    def read(data: bytes) -> None:
        what, _, held = data.partition(b"\n")
        agent = Quiet()
        agent.root = str(root)
        if what in places:
            (root / places[what]).write_bytes(held)
            agent.do_releases()
            held = _agent_seeds_manifest
        agent.held += held
        with contextlib.suppress(Gone):
            agent.serve()

    return read


_agent_seeds_manifest = (
    b'{"do": "manifest", "folder": ["releases", "r1", "bundle"], "name": "manifest.json"}\n'
)


def _mutate_agent(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    first, _, rest = data.partition(b"\n")
    change = mutate_json_lines if first == b"requests" else mutate_json
    if rng.random() < 0.1:
        change = mutate_words
    return first + b"\n" + change(rng, rest, ())


KINDS = (
    Kind(
        "device",
        "a device's answers to qmdd deploy, rollback and doctor",
        _answers,
        _read_answers,
        (_mutate_answers,),
        guided=("qmdd.runtime.deploy", "qmdd.cli.deployment", "qmdd.runtime.device"),
        cases=60_000,
    ),
    Kind(
        "facts",
        "what a device says of itself, as qmdd doctor and deploy judge it",
        lambda _workshop: [json.dumps(_facts()).encode()],
        _facts_reader,
        (mutate_json,),
        guided=("qmdd.runtime.device", "qmdd.runtime.doctor", "qmdd.runtime.deploy.fitness"),
        cases=60_000,
    ),
    Kind(
        "agent",
        "records on a device and requests, as the agent reads them there",
        _agent_seeds,
        _read_agent,
        (_mutate_agent,),
        guided=("qmdd.runtime.deploy.agent",),
        cases=80_000,
    ),
)
