"""Every case that once broke qmdd, a short run of each kind, and whether a fault would be seen."""

from __future__ import annotations

import json
import os
import random
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardening.fuzzing.campaign import Campaign, planned
from hardening.fuzzing.found import cases, faults
from hardening.fuzzing.kind import Kind, NotRight, Reader, WrongHash, case_of
from hardening.fuzzing.kinds import KINDS
from hardening.fuzzing.mutators.archives import mutate_archive, mutate_pickle
from hardening.fuzzing.mutators.json_text import mutate_json, mutate_json_lines
from hardening.fuzzing.mutators.media import mutate_media
from hardening.fuzzing.mutators.plain import mutate_bytes, mutate_ends
from hardening.fuzzing.mutators.protobuf import bytes_of, fields_of, mutate_protobuf
from hardening.fuzzing.mutators.tensors import mutate_safetensors
from hardening.fuzzing.mutators.words import mutate_words
from hardening.fuzzing.outcome import ACCEPTED, FAULTS, OUTCOMES, REFUSED, judge
from hardening.fuzzing.workshop import Workshop

FOUND = list(cases())
#: Kinds that take long for one input: fewer of these.
SLOW = {
    "checkpoint",
    "training-state",
    "import",
    "onnx",
    "onnx-graph",
    "probes",
    "command",
    "video",
}
MUTATORS = (
    *(mutate_archive, mutate_bytes, mutate_ends, mutate_json, mutate_json_lines, mutate_media),
    *(mutate_pickle, mutate_protobuf, mutate_safetensors, mutate_words),
)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("fuzzing"))


@pytest.fixture
def reader(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> Iterator[Reader]:
    """The reader of the kind that the test is about; what it prints goes nowhere."""
    import contextlib

    read = KINDS[request.param].reader(workshop, tmp_path)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield read


@pytest.mark.filterwarnings("ignore")  # a file's own: Pillow's, torch's
@pytest.mark.parametrize(
    ("reader", "name", "data"),
    [pytest.param(*case, id=f"{case.kind}-{case.name}") for case in FOUND],
    indirect=["reader"],
)
def test_what_once_broke_it(reader: Reader, name: str, data: bytes) -> None:
    outcome = judge(reader, data)
    assert outcome.name in (ACCEPTED, REFUSED), outcome


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("reader", "kind"), [(name, name) for name in KINDS], ids=list(KINDS), indirect=["reader"]
)
def test_a_short_run(reader: Reader, kind: str, workshop: Workshop) -> None:
    """Other inputs than those of the long run: its seed is another one."""
    seeds = KINDS[kind].seeds(workshop)
    for seed in seeds:
        assert judge(reader, seed).name in (ACCEPTED, REFUSED)
    for number in range(4 if kind in SLOW else 60):
        outcome = judge(reader, case_of(KINDS[kind], seeds, 0, number))
        assert outcome.name in (ACCEPTED, REFUSED), (number, outcome)


def test_a_changed_file_is_never_accepted(workshop: Workshop, tmp_path: Path) -> None:
    """Each listed file of a bundle, by one bit; and the kind would say so."""
    kind = KINDS["bundle-file"]
    read = kind.reader(workshop, tmp_path)
    for seed in kind.seeds(workshop):
        assert judge(read, seed).name == ACCEPTED
        assert judge(read, seed[:-1] + bytes([seed[-1] ^ 1])).name == REFUSED


def test_the_same_seed_gives_the_same_inputs() -> None:
    kind = KINDS["hosts"]
    seeds = kind.seeds(Workshop.__new__(Workshop))
    first = [case_of(kind, seeds, 5, number) for number in range(50)]
    assert first == [case_of(kind, seeds, 5, number) for number in range(50)]
    assert len(set(first)) > 40
    assert first != [case_of(kind, seeds, 6, number) for number in range(50)]


@pytest.mark.parametrize("mutate", MUTATORS, ids=lambda mutate: mutate.__name__)
@pytest.mark.parametrize("data", [b"{}", b'{"a": [1, {"b": "c"}]}', b"PK\x03\x04", b"x" * 700])
def test_mutators_take_and_give_bytes(mutate: object, data: bytes) -> None:
    made = {KIND_OF(mutate, data, number) for number in range(60)}
    assert len(made) > 5
    assert all(isinstance(one, bytes) for one in made)


def KIND_OF(mutate: object, data: bytes, number: int) -> bytes:  # noqa: N802 - a constant's maker
    kind = Kind("x", "", lambda _w: [data], lambda _w, _s: lambda _d: None, (mutate,))  # type: ignore[arg-type]
    return case_of(kind, [data], 1, number)


def test_protocol_buffers_come_back() -> None:
    """As they were, where nothing is changed."""
    import onnx

    tensor = onnx.numpy_helper.from_array(__import__("numpy").arange(9))
    data = onnx.helper.make_graph([], "g", [], [], [tensor]).SerializeToString()
    fields = fields_of(data)
    assert fields is not None
    assert bytes_of(fields) == data
    assert fields_of(data[:-1]) is None
    assert mutate_protobuf(random.Random(1), data, [data]) != data  # noqa: S311


def test_outcomes() -> None:
    def raises(error: BaseException) -> str:
        def read(_data: bytes) -> None:
            raise error

        return judge(read, b"").name

    from qmdd.runtime.errors import BundleError

    assert judge(lambda _data: None, b"").name == "accepted"
    assert raises(BundleError("x")) == "refused"
    assert raises(FileNotFoundError(2, "No such file")) == "refused"
    assert raises(KeyError("x")) == "traceback"
    assert raises(RecursionError()) == "traceback"
    assert raises(SystemExit(1)) == "traceback"
    assert raises(MemoryError()) == "memory"
    assert raises(WrongHash("x")) == "wrong hash accepted"
    assert raises(NotRight("x")) == "not right"


SCRIPT = """
    import ctypes, sys, time
    from hardening.fuzzing.kind import Kind
    from hardening.fuzzing.worker import main

    def reader(_workshop, _scratch):
        def read(data):
            if data == b"crash":
                ctypes.string_at(0)
            if data == b"hang":
                time.sleep(600)
            if data == b"memory":
                bytearray(b"x") * (5 << 28)
            if data == b"traceback":
                raise KeyError(data)
            if data == b"refused":
                raise OSError("no")
        return read

    def mutate(rng, data, seeds):
        return ALL[numbers.pop(0)]

    ALL = [b"accepted", b"crash", b"refused", b"hang", b"memory", b"traceback"]
    numbers = list(range(int(sys.argv[4]), 99))
    kind = Kind("odd", "", lambda _w: [b""], reader, (mutate,), seconds=8.0)
    main(sys.argv[1:], {"odd": kind})
"""


def test_every_fault_is_seen_and_the_run_goes_on(tmp_path: Path) -> None:
    """A crash, no end and too much memory end the process, not the run; each input is kept."""
    script = tmp_path / "odd.py"
    script.write_text(textwrap.dedent(SCRIPT))
    kind = Kind("odd", "odd", lambda _w: [b""], lambda _w, _s: lambda _d: None, (), seconds=8.0)
    work = tmp_path / "work"
    campaign = Campaign(work, 1, kinds={"odd": kind}, program=[sys.executable, str(script)])
    campaign.run({"odd": 6})
    assert campaign.tallies["odd"].outcomes == {
        **dict.fromkeys(OUTCOMES, 0),
        **dict.fromkeys(("accepted", "refused", "crash", "hang", "memory", "traceback"), 1),
    }
    found = faults(work / "faults")
    assert sorted(one["name"] for one in found) == ["crash", "hang", "memory", "traceback"]
    kept = {case.name: case.data for case in cases(work / "faults")}
    assert {one["name"]: kept[one["case"]] for one in found} == {
        name: name.encode() for name in ("crash", "hang", "memory", "traceback")
    }
    # The same again has nothing left to do, and knows what was found.
    again = Campaign(work, 1, kinds={"odd": kind}, program=["false"])
    again.run({"odd": 6})
    assert again.tallies == campaign.tallies


def test_shares_of_a_run() -> None:
    plan = planned(None, ())
    assert sum(plan.values()) >= 1_000_000
    assert set(plan) == set(KINDS)
    few = planned(1000, ("recipe", "hosts"))
    assert set(few) == {"recipe", "hosts"}
    assert abs(sum(few.values()) - 1000) <= 1


def test_the_record_of_the_long_run() -> None:
    """It is of these kinds, ended without a fault, and had its million."""
    path = Path(__file__).parents[2] / "hardening" / "results" / "fuzzing.json"
    held = json.loads(path.read_text(encoding="utf-8"))
    assert held["kinds"].keys() == KINDS.keys()
    assert held["cases"] == sum(told["cases"] for told in held["kinds"].values()) >= 1_000_000
    assert [held["outcomes"][name] for name in FAULTS] == [0] * len(FAULTS)
    assert held["faults"] == []
