"""What became of one deployment, for people, programs and the bundle's own report."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..device.facts import Facts
from ..errors import DeployError
from ..files import write_atomically
from .hosts import Host

#: The report's own version.
SCHEMA = 1
#: Where a bundle keeps what devices said; no part of its manifest, and never copied to a device.
REPORTS = "devices"
#: Of what a device tells so much is said on a line; no bundle has as many tiers.
_TIERS = 8
#: The states that a deployment ends in.
DEPLOYED, AGAIN, FAILED = "deployed", "already deployed", "failed"


@dataclasses.dataclass
class Outcome:
    """One device's deployment, as far as it came.

    Attributes:
        host: the device.
        state: ``deployed``; ``already deployed`` (the same bundle and environment were current:
            verified and measured again); or ``failed``.
        step: the step that failed, empty otherwise.
        error: why, in one line.
        warnings: what else a person should know.
        release: the release's id on the device.
        previous: the release that was current before, if any.
        copied, present: bytes that were copied, and that were there already.
        files: number of files that were copied.
        seconds: wall-clock seconds by step.
        commands: the programs that were run there.
        facts: what the device is (:mod:`qmdd.runtime.device.probe`).
        engine: the engine's sidecar, if the device runs one.
        verify: what ``qmdd verify --golden`` found there.
        bench: what ``qmdd bench`` measured there.
        manifest_sha256: of the bundle that was deployed.
        log: a file here with all that the programs there said, if one failed.
    """

    host: Host
    state: str = FAILED
    step: str = ""
    error: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    release: str = ""
    previous: str | None = None
    copied: int = 0
    present: int = 0
    files: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    commands: list[list[str]] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    engine: dict[str, Any] | None = None
    verify: dict[str, Any] | None = None
    bench: dict[str, Any] | None = None
    manifest_sha256: str = ""
    log: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the device runs the bundle now, verified."""
        return self.state in (DEPLOYED, AGAIN)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the label says that all figures in it were measured there."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            "schema": SCHEMA,
            "label": "measured on the device",
            **plain,
            "host": dataclasses.asdict(self.host),
            "passed": self.passed,
        }


def report_path(bundle: Path, host: Host) -> Path:
    """Where ``bundle`` keeps the report of ``host``."""
    return bundle / REPORTS / f"{quote(host.label, safe='@+')[:200]}.json"


def write_report(bundle: Path, outcome: Outcome) -> Path:
    """Keep a deployment's report in the bundle; its time is this machine's.

    Raises:
        DeployError: it cannot be written.
    """
    path = report_path(bundle, outcome.host)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    data = {**outcome.to_dict(), "time": now}
    if path.parent.is_symlink():  # the bundle may have come from elsewhere
        raise DeployError(
            f"{path.parent}: leads elsewhere, so the report is not written; the deployment itself "
            "stands"
        )
    try:
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(data, indent=2, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise DeployError(
            f"{path}: the report cannot be written ({error.strerror or error}); the deployment "
            "itself stands"
        ) from error
    return path


def missed(found: Mapping[str, Any]) -> str:
    """What ``qmdd verify --golden --json`` says was missed, tier by tier, in words."""
    words = []
    for tier in Facts(found).objects("parity")[:_TIERS]:
        wrong, total = tier.number("wrong_codes") or 0, tier.number("codes_compared") or 0
        flipped, budget = tier.number("flipped_verdicts") or 0, tier.number("code_budget") or 0
        difference, bar = tier.number("max_abs_logit_diff"), tier.number("logit_bar") or 0
        faults = [f"{wrong:,.0f} of {total:,.0f} codes wrong"] if wrong > budget * total else []
        if flipped:
            faults.append(f"{flipped:,.0f} verdicts flipped")
        if difference is None or difference > bar:
            told = "no number" if difference is None else f"off by {difference:.1e}"
            faults.append(f"a logit is {told}, the bar is {bar:g}")
        faults += tier.texts("fallbacks")[:_TIERS]
        words += [f"{tier.text('tier')}: {', '.join(faults)}"] if faults else []
    return "; ".join(words) or "nothing was compared"


def last_words(said: str) -> str:
    """The line of a program's words that says why it failed: its error, or its last one."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    for line in reversed(lines):
        found = re.fullmatch(r"(?:qmdd: error|ERROR|OSError|error): (.*)", line)
        if found:
            return found[1]
    return lines[-1] if lines else "it says nothing"
