"""The report's first lines: exact, built, run, measured; each with what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...runtime.bench import count_of
from ...runtime.sessions import TENSORRT

#: States of an answer.
YES, NO, OPEN = "yes", "no", "open"


def verdict(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """Question, answer, state (:data:`YES`, :data:`NO`, :data:`OPEN`) and what it rests on.

    Args:
        data: what :func:`~.gather.gather` found so far.
    """
    return [_exact(data), _built(data), _run(data), _measured(data)]


def _line(question: str, state: str, answer: str, detail: str) -> dict[str, str]:
    return {"question": question, "state": state, "answer": answer, "detail": detail}


def _exact(data: Mapping[str, Any]) -> dict[str, str]:
    parity = data["parity"]
    tiers, golden = parity["recorded"], parity["here"]
    parts = []
    if tiers:
        parts.append(f"At export with its source in PyTorch: {_compared(tiers)}.")
    if golden:
        parts.append(f"Now, here, with the golden results in it: {_compared(golden['parity'])}.")
    every = [*tiers, *(golden["parity"] if golden else [])]
    detail = " ".join(parts)
    if not every:
        return _line("Exact?", OPEN, "not compared", parity["why_not_here"] or "No parity in it.")
    if not all(tier["passed"] for tier in every):
        return _line("Exact?", NO, "no", detail)
    if not sum(tier["codes_compared"] for tier in every):
        full = data["bundle"]["bits"] == 32
        answer = "logits equal within the bar" if full else "logits only"
        return _line("Exact?", YES if full else OPEN, answer, detail)
    if any(tier["wrong_codes"] for tier in every):
        return _line("Exact?", OPEN, "within the engine's budget", detail)
    return _line("Exact?", YES, "yes, code by code", detail)


def _compared(tiers: Sequence[Mapping[str, Any]]) -> str:
    """What was compared, in words."""
    codes = sum(tier["codes_compared"] for tier in tiers)
    wrong = sum(tier["wrong_codes"] for tier in tiers)
    flipped = sum(tier["flipped_verdicts"] or 0 for tier in tiers)
    images = max(tier["images"] for tier in tiers)
    apart = [tier["max_abs_logit_diff"] for tier in tiers]
    largest = max((x for x in apart if x is not None), default=None)
    logits = "no number" if largest is None or None in apart else f"{largest:.1e}"
    names = ", ".join(tier["tier"] for tier in tiers)
    text = f"{wrong:,} of {codes:,} codes differ" if codes else "no codes were seen"
    on = f"{images:,} image{'s' * (images != 1)}"
    return (
        f"{text} on {on} ({names}); largest logit difference {logits}, {flipped:,} verdicts flipped"
    )


def _built(data: Mapping[str, Any]) -> dict[str, str]:
    layers = data["layers"]["found"]
    if layers is None:
        return _line("Built?", OPEN, "not known", data["layers"]["why_not"])
    engine = layers["engine"]
    if engine is None:
        if data["bundle"]["wants_engine"]:
            detail = "Its target runs engines: qmdd build makes one."
            return _line("Built?", OPEN, "no engine yet", detail)
        detail = "Its runtime reads model.onnx itself."
        return _line("Built?", OPEN, "needs no engine", detail)
    int8 = f"INT8 layers: {layers['built'].get('int8', 0)} of {layers['planned'].get('int8', 0)}"
    detail = f"{engine['backend']} {engine['version']}, {engine['label']}. {int8} planned."
    if not layers["passed"]:
        return _line("Built?", NO, "not as planned", f"{detail} {len(layers['faults'])} faults.")
    return _line("Built?", YES, "as planned", detail)


def _run(data: Mapping[str, Any]) -> dict[str, str]:
    here, devices = data["parity"]["here"], data["speed"]["devices"]
    good = [device for device in devices if device["passed"] and device["same"]]
    names = sorted({tier["runtime"] for tier in here["parity"]}) if here else []
    parts = []
    if here:
        parts.append(f"On this machine, by {', '.join(names)}.")
    else:
        parts.append(f"Not on this machine: {data['parity']['why_not_here']}.")
    ran = bool(here) and (not data["bundle"]["wants_engine"] or TENSORRT in names)
    if here and not ran:
        parts.append("That is its ONNX model: its engine did not run here.")
    if devices:
        parts.append(f"Verified on {len(good)} of {len(devices)} devices that reported.")
    if ran or good:
        return _line("Run?", YES, "yes", " ".join(parts))
    return _line("Run?", OPEN, "its ONNX model alone" if here else "not run", " ".join(parts))


def _measured(data: Mapping[str, Any]) -> dict[str, str]:
    bench, devices = data["speed"]["bench"], data["speed"]["devices"]
    timed = [device for device in devices if device["bench"]]
    rows = [row for row in bench["rows"] if not row["twin"]] if bench else []
    if not rows and not timed:
        detail = "No figure of speed here: add --bench, or --bench-json FILE."
        return _line("Measured?", OPEN, "no", detail)
    parts = []
    if rows:
        best = rows[0]
        text = f"{best['median_ms']:.2f} ms a run (median), {count_of(best['threads'])}"
        if best["ratio"] is not None:
            text += f", {best['ratio']:.2f} of the full-precision twin in the same run"
        parts.append(f"{text}, on {bench['processor'] or 'an unnamed processor'}.")
    if timed:
        parts.append(f"On {len(timed)} device{'s' * (len(timed) != 1)}, see below.")
    return _line("Measured?", YES, "yes", " ".join(parts))
