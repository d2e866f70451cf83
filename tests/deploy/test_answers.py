"""What a device answers is looked at before it is used: it may be anybody's."""

from __future__ import annotations

import io
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from qmdd.cli.deployment import print_outcome
from qmdd.runtime.deploy import connection, releases
from qmdd.runtime.deploy.connection import Connection, DeviceOSError
from qmdd.runtime.deploy.hosts import Host
from qmdd.runtime.deploy.outcome import DEPLOYED, Outcome
from qmdd.runtime.deploy.transfer import send
from qmdd.runtime.deploy.work import Work
from qmdd.runtime.errors import DeployError


class Told(Connection):
    """A connection whose other end says these lines, whatever it is asked."""

    def __init__(self, *lines: bytes | dict[str, Any]) -> None:
        said = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        self.host = Host("user@device")
        self._said = io.BytesIO()  # type: ignore[assignment]
        self._process = SimpleNamespace(  # type: ignore[assignment]
            stdin=io.BytesIO(),
            stdout=io.BytesIO(b"".join(line + b"\n" for line in said)),
            poll=lambda: 255,
            wait=lambda _seconds=None: 255,
        )
        self._sending, self._closed = threading.Lock(), threading.Event()


@pytest.mark.parametrize(
    ("do", "answer"),
    [
        ("open", {"root": 3, "free": 5}),
        ("open", {"root": "/x", "free": 1e300}),
        ("open", {"root": "/x", "free": -1}),
        ("releases", {"releases": []}),
        ("releases", {"releases": {}, "current": ["a"]}),
        ("have", {"have": 1.5}),
        ("have", {"have": {"a": True}}),
        ("list", {"names": "abc"}),
        ("list", {"names": [1]}),
        ("manifest", {}),
        ("facts", {"facts": [1]}),
        ("usable", {"usable": "no"}),
    ],
)
def test_an_answer_that_is_none(do: str, answer: dict[str, Any]) -> None:
    with pytest.raises(DeployError, match=f"^user@device: what it answers to '{do}' holds no "):
        Told({"ok": True, **answer}).ask(do)


@pytest.mark.parametrize("answer", [{}, {"rc": "0", "out": ""}, {"rc": 0, "out": None}])
def test_a_program_that_ended_oddly(answer: dict[str, Any]) -> None:
    with pytest.raises(DeployError, match="what it answers to 'run'"):
        Told({"ok": True, **answer}).run(["x"], timeout=1)


@pytest.mark.parametrize("line", [b"[" * 100_000, b"1" * 5000, b"{", b"3", b"\xff"])
def test_a_line_that_is_no_answer(line: bytes) -> None:
    with pytest.raises(DeployError, match="answer is not"):
        Told(line).ask("list")


@pytest.mark.parametrize("data", ["x", "====", "é"])
def test_bytes_that_are_none(data: str) -> None:
    with pytest.raises(DeployError, match=r"^user@device: a file's bytes arrive damaged"):
        Told({"ok": True, "data": data}).read("a")
    assert Told({"ok": True, "data": None}).read("a") is None
    assert Told({"ok": True, "data": "YWI="}).read("a") == b"ab"


@pytest.mark.parametrize("number", ["28", -1, 1e9, None, [1], 10**20])
def test_an_error_with_a_number_that_is_none(number: object) -> None:
    with pytest.raises(DeviceOSError, match=r"^user@device: full$") as caught:
        Told({"ok": False, "errno": number, "reason": "full"}).ask("list")
    assert caught.value.errno == 0


def test_a_note_of_a_release_that_leads_nowhere_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"a": {"previous": {"b": 1}}, "b": 3, "c": {"previous": None, "environment": ["e"]}}
    told = {"ok": True, "releases": held, "current": "a"}
    monkeypatch.setattr(releases, "Connection", lambda *_a, **_o: Told({"ok": True, **OPEN}, told))
    with pytest.raises(DeployError, match="there is no release before a"):
        releases.rollback(Host("user@device"))
    assert releases.history(Host("user@device")) == ("a", {})


OPEN = {"root": "/home/u/qmdd", "free": 5}


def test_more_of_a_file_than_there_is_does_not_count() -> None:
    """What nobody asked for does not either; both would be left out, and said to be there."""
    item = SimpleNamespace(sha256="aa", size=4, open=lambda: io.BytesIO(b"abcd"))
    told = Told({"ok": True, "have": {"aa": 9, "bb": 1 << 40}}, {"ok": True})
    outcome = Outcome(told.host)
    items: Any = [item]
    send(told, items, outcome, free=1 << 40, fresh=False, report=lambda *_told: None)
    assert (outcome.present, outcome.copied, outcome.files) == (0, 4, 1)


def test_words_without_end_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []

    class Talker(Told):
        def run(self, _arguments: Any, *, words: Any = None, **_options: Any) -> Any:
            for _ in range(30):
                words("x" * (1 << 20))
                lengths.append(
                    sum(
                        len(cell.cell_contents)
                        for cell in words.__closure__
                        if isinstance(cell.cell_contents, str)
                    )
                )
            raise DeployError("gone")

    work = Work(Talker())
    with pytest.raises(DeployError):
        work.run(["x"], timeout=1)
    assert max(lengths) <= 4 << 20
    assert len(work.said) == 4 << 20


def test_figures_that_are_none_are_question_marks(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(Host("user@device"), DEPLOYED)
    outcome.verify = {"parity": [{"tier": "strict", "wrong_codes": "all", "images": 4}, 7]}
    outcome.bench = {"configurations": [{"threads": 2, "rows": [{"name": "x\x1b[2J"}, None]}, 0]}
    print_outcome(outcome)
    said = capsys.readouterr().out
    assert "strict (): ? of ? codes wrong, ? of 4 verdicts flipped" in said
    assert "2 threads): ? ms an image, ?" in said
    assert "\x1b" not in said
    outcome.verify, outcome.bench = {"parity": 3}, {"configurations": "none"}
    print_outcome(outcome)


def test_the_agents_own_answers_have_the_forms(tmp_path: Any) -> None:
    """What it answers, asked in this process, is taken as it is."""
    from qmdd.runtime.deploy.agent import Agent
    from qmdd.runtime.deploy.answers import checked

    agent = Agent()
    asked: list[tuple[str, dict[str, Any]]] = [
        ("open", {"folder": str(tmp_path / "qmdd")}),
        ("releases", {}),
        ("have", {"objects": {"0" * 64: 3}}),
        ("list", {"path": ["envs"]}),
        ("read", {"path": ["none"]}),
        ("manifest", {"folder": ["releases"], "name": "manifest.json"}),
        ("usable", {"path": ["envs"]}),
    ]
    for do, what in asked:
        answer = json.loads(json.dumps(getattr(agent, f"do_{do}")(**what)))
        assert checked(do, answer) == answer
    assert connection.CHUNK


def _asked(tmp_path: Any, *lines: bytes) -> list[dict[str, Any]]:
    """What an agent in ``tmp_path`` answers to these lines."""
    from qmdd.runtime.deploy.agent import Agent, Gone

    told: list[dict[str, Any]] = []

    class Heard(Agent):
        def fill(self, patience: float = 0) -> bool:
            raise Gone

        def say(self, **answer: object) -> None:
            told.append(json.loads(json.dumps(answer)))

    agent = Heard()
    agent.root = str(tmp_path)
    agent.held += b"".join(line + b"\n" for line in lines)
    with pytest.raises(Gone):
        agent.serve()
    return told[1:]


@pytest.mark.parametrize(
    "line",
    [
        *(b"{", b"3", b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"do": 3}', b'{"do": "fly"}'),
        *(b'{"do": "list"}', b'{"do": "list", "path": [[1]]}', b'{"do": "list", "path": 3}'),
    ],
)
def test_an_agent_lives_on_after_what_is_no_request(tmp_path: Any, line: bytes) -> None:
    odd, right = _asked(tmp_path, line, b'{"do": "list", "path": []}')
    assert odd["refused"].startswith("not understood: ")
    assert right == {"ok": True, "names": []}


def test_an_agent_reads_damaged_notes(tmp_path: Any) -> None:
    """Nested without end, and names that no file can have: damaged, and nothing worse."""
    bundle = tmp_path / "releases" / "r" / "bundle"
    bundle.mkdir(parents=True)
    (tmp_path / "releases" / "r" / "deployed.json").write_text("[" * 100_000)
    names = ["\ud800", "../x", "a\0b", "/etc/passwd"]
    files = {name: {"sha256": "0" * 64, "bytes": 1} for name in names}
    (bundle / "whole.json").write_text(json.dumps({"files": files}))
    (bundle / "deep.json").write_text("[" * 100_000)
    asks = [
        json.dumps({"do": "manifest", "folder": ["releases", "r", "bundle"], "name": name}).encode()
        for name in ("whole.json", "deep.json")
    ]
    found = _asked(tmp_path, b'{"do": "releases"}', *asks)
    assert found[0]["releases"] == {"r": None}
    assert [answer["wrong"] for answer in found[1:]] == [names, ["deep.json"]]
