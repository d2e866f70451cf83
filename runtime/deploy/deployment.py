"""One bundle on one device: copied, built, verified and measured there, then switched to.

Whatever fails, what ran before runs on: nothing that is in use is touched before the last step,
which replaces one link.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..bundle import MANIFEST, Bundle
from ..device.facts import Facts
from ..device.judge_gpu import TENSORRT
from ..device.needs import TargetNeeds
from ..engine import engine_folder
from ..errors import DeployError, EngineError
from .connection import Connection, DeviceOSError
from .environment import (
    CONSTRAINTS,
    environment_key,
    find_environment,
    make_environment,
)
from .fitness import engine_fault, judge, native_platform, tensorrt_of
from .hosts import Host
from .layout import Layout
from .look import look
from .options import Options
from .outcome import AGAIN, DEPLOYED, FAILED, Outcome, last_words, missed
from .payload import Item, bundle_items, further_wheels, runtime_wheel
from .releases import current_release, damaged, prune, read_release
from .transfer import send
from .work import Work

Report = Callable[[str, int, int], None]

#: Releases that stay on the device beside the current one.
KEEP = 2
_ENOSPC, _EDQUOT = 28, 122


def deploy(
    bundle: Bundle,
    host: Host,
    need: TargetNeeds,
    options: Options,
    report: Report | None = None,
) -> Outcome:
    """Deploy ``bundle`` to ``host``.

    Args:
        bundle: an opened bundle.
        host: the device.
        need: what its target asks of a device; without ``backend`` the model itself is run.
        options: how.
        report: called with ``(what is being done, done, total)``.

    Returns:
        What became of it; a failure is in there, too, with the step that failed.
    """
    run = _Deployment(bundle, host, need, options, report or (lambda _what, _done, _total: None))
    try:
        run.go()
    except (DeployError, EngineError, OSError) as error:
        run.failed(error)
    return run.outcome


class _Deployment:
    def __init__(
        self, bundle: Bundle, host: Host, need: TargetNeeds, options: Options, report: Report
    ) -> None:
        self.bundle, self.host, self.need, self.options = bundle, host, need, options
        self.report = report
        self.outcome = Outcome(host)
        self.work: Work | None = None

    def failed(self, error: Exception) -> None:
        number = error.errno if isinstance(error, (OSError, DeviceOSError)) else None
        text = str(error)
        self.outcome.state = FAILED
        if number in (_ENOSPC, _EDQUOT):
            text += "; free some space there, then deploy again: what was copied is kept"
        # The connection's errors begin with the host's name; so does whoever prints this.
        self.outcome.error = text.removeprefix(f"{self.host.label}: ")
        if self.work is not None:
            self.outcome.log = self.work.keep_log()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """One step, timed; if it raises, the outcome says which it was."""
        self.outcome.step = name
        self.report(name, 0, 0)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.outcome.seconds[name] = time.perf_counter() - started
        self.outcome.step = ""

    def go(self) -> None:
        """All steps in their order."""
        outcome, options = self.outcome, self.options
        with self.step("connect"):
            connection = Connection(
                self.host,
                python=options.python,
                config=options.config,
                ask=options.ask,
                patience=options.patience,
            )
        with connection:
            self.work = Work(connection, outcome.commands)
            with self.step("look"):
                extras = self.look()
            with self.step("copy"):
                root = self.open_folder()
                wheels = self.wheels()
                items = bundle_items(self.bundle)
                self.objects = [item.sha256 for item in items]
                outcome.manifest_sha256 = items[-1].sha256
                key = self.key(wheels, extras)
                made = None if options.remake else find_environment(self.work, key)
                # One that is in use is never made anew in its place.
                key, fresh = made or f"{key}-{secrets.token_hex(3)}", made is None
                send(
                    connection,
                    [*items, *(wheels if fresh else ())],
                    outcome,
                    free=self.free,
                    fresh=fresh,
                    report=self.report,
                )
            layout = Layout(root, self.chosen_release(key), key)
            try:
                self.prepare(layout, items, wheels, extras, fresh)
                with self.step("switch"):
                    self.switch(layout)
            except DeployError:
                if outcome.state != AGAIN and outcome.step != "switch":
                    # What was not switched to is of no use; why it failed is in the log.
                    with suppress(DeployError):
                        self.ask("remove", path=("releases", layout.release))
                raise

    def prepare(
        self,
        layout: Layout,
        items: Sequence[Item],
        wheels: Sequence[Item],
        extras: tuple[str, ...],
        fresh: bool,
    ) -> None:
        """Everything between the copy and the switch."""
        options, work = self.options, self.work
        assert work is not None  # noqa: S101 - as in ask
        if fresh:
            with self.step("environment"):
                make_environment(
                    work,
                    layout,
                    wheels,
                    extras,
                    python=options.python,
                    system_packages=self.system_packages,
                    index=options.wheels is None,
                )
        if self.outcome.state != AGAIN:
            with self.step("release"):
                self.link(layout, items)
            if self.must_build():
                with self.step("build"):
                    work.run(layout.build(options.side, options.batch), timeout=options.timeout)
        with self.step("verify"):
            self.verify(layout)
        if options.bench_seconds:
            with self.step("bench"):
                self.bench(layout)

    @property
    def system_packages(self) -> bool:
        """A Jetson's TensorRT belongs to the system's Python."""
        return self.need.backend == TENSORRT

    def ask(self, do: str, /, **what: object) -> dict[str, Any]:
        assert self.work is not None  # noqa: S101 - there is a connection in every step that asks
        return self.work.connection.ask(do, **what)

    def look(self) -> tuple[str, ...]:
        """Find out what the device is; the extras of qmdd that it needs."""
        assert self.work is not None  # noqa: S101 - as in ask
        self.outcome.facts = look(self.work.connection, self.host.folder)
        extras, warnings = judge(self.bundle, self.outcome.facts, self.need, time.time())
        self.outcome.warnings += warnings
        return extras

    def open_folder(self) -> str:
        """Lock the device's folder, see what runs there; its absolute path."""
        found = self.ask("open", folder=self.host.folder)
        self.free = found["free"]
        self.outcome.previous = current_release(self.ask)
        root: str = found["root"]
        return root

    def wheels(self) -> list[Item]:
        """Qmdd's wheel, further ones, and the pinned versions."""
        options = self.options
        platform = native_platform(self.outcome.facts)
        items = [runtime_wheel(options.wheel, platform), *further_wheels(options.wheels)]
        if options.constraints is not None:
            items.append(Item.of(CONSTRAINTS, options.constraints))
        return items

    def key(self, wheels: Sequence[Item], extras: tuple[str, ...]) -> str:
        """Name of the environment that these wheels make there."""
        facts = Facts(self.outcome.facts)
        python = f"{self.options.python} {facts.text('python', 'version')}"
        machine = facts.text("system", "machine")
        system = {"packages": self.system_packages, "machine": machine}
        return environment_key(wheels, extras, python, system)

    def chosen_release(self, key: str) -> str:
        """The current release, if it is of this bundle and environment; or a new one's id."""
        outcome = self.outcome
        current = outcome.previous
        held = read_release(self.ask, current) if current else None
        if held and not self.options.remake and current:
            same = (
                held.get("manifest_sha256") == outcome.manifest_sha256
                and held.get("environment") == key
                and held.get("tensorrt") == tensorrt_of(outcome.facts)
                and held.get("sizes") == [self.options.side, self.options.batch]
            )
            # What was damaged meanwhile is laid out anew.
            if same and not damaged(self.ask, current):
                outcome.state, outcome.release = AGAIN, current
                outcome.previous = held.get("previous")
                return current
        # Our clock: the device's may be wrong, and releases are sorted by their names.
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        outcome.release = f"{stamp}-{secrets.token_hex(3)}"
        return outcome.release

    def link(self, layout: Layout, items: Sequence[Item]) -> None:
        """Lay out the release; nothing points to it yet."""
        release = ("releases", layout.release)
        self.ask(
            "link",
            folder=(*release, "bundle"),
            files={item.name: item.sha256 for item in items},
        )
        target = f"../../envs/{layout.environment}"
        self.ask("point", path=(*release, "env"), target=target)

    def must_build(self) -> bool:
        """Whether the engine has to be built there."""
        if not self.need.backend:
            return False
        options = self.options
        if engine_folder(self.bundle) is None:
            return True
        fault = engine_fault(self.bundle, self.outcome.facts)
        if fault:
            self.outcome.warnings.append(f"the bundle's engine is not used: {fault}; built anew")
        return bool(fault or options.remake or options.side or options.batch)

    def verify(self, layout: Layout) -> None:
        """Compare with the golden results; a miss is an error."""
        assert self.work is not None  # noqa: S101 - as in ask
        said = self.work.run(
            layout.verify(self.options.runtime), timeout=self.options.timeout, accept=(0, 1)
        )
        found = _json(said)
        if found is None:
            raise DeployError(
                f"{last_words(self.work.said)}; if its environment is damaged, --remake makes it "
                "anew"
            )
        self.outcome.verify = found
        if not found.get("passed"):
            raise DeployError(
                f"the device does not compute what was trained: {missed(found)}; it goes on with "
                "what it had"
            )

    def bench(self, layout: Layout) -> None:
        """Measure; how fast it is decides nothing."""
        assert self.work is not None  # noqa: S101 - as in ask
        said = self.work.run(
            layout.bench(self.options.bench_seconds, self.options.runtime),
            timeout=600 + 10 * self.options.bench_seconds,
        )
        self.outcome.bench = _json(said)

    def switch(self, layout: Layout) -> None:
        """Note what was found, let ``current`` lead there, and remove what is too old."""
        outcome = self.outcome
        release = ("releases", layout.release)
        assert self.work is not None  # noqa: S101 - as in ask
        record = self.work.connection.read(*release, "bundle", MANIFEST)
        engine = (_json((record or b"{}").decode(errors="replace")) or {}).get("engine")
        outcome.engine = engine if isinstance(engine, dict) else None
        again = outcome.state == AGAIN
        outcome.state = AGAIN if again else DEPLOYED
        text = json.dumps(outcome.to_dict(), indent=1, sort_keys=True) + "\n"
        self.ask("write", path=(*release, "report.json"), text=text)
        if again:
            return
        outcome.state = FAILED  # until the link is replaced
        held = {
            "release": layout.release,
            "previous": outcome.previous,
            "environment": layout.environment,
            "manifest_sha256": outcome.manifest_sha256,
            "target": self.bundle.target,
            "arch": self.bundle.arch,
            "bits": self.bundle.bits,
            "tensorrt": tensorrt_of(outcome.facts),
            "sizes": [self.options.side, self.options.batch],
            "time": time.time(),
        }
        self.ask("write", path=(*release, "deployed.json"), text=json.dumps(held) + "\n")
        self.ask("point", path=("current",), target="/".join(release))
        outcome.state = DEPLOYED
        try:
            prune(self.ask, KEEP, self.objects)
        except DeployError as error:
            # It runs; what is too old goes with the next deployment.
            outcome.warnings.append(f"old releases were not removed: {error}")


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
