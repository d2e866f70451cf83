"""Names of hosts: what is one, what is none, and that no shell could take one for its own."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmdd.runtime.deploy.connection import bootstrap, ssh_arguments
from qmdd.runtime.deploy.hosts import FOLDER, MAX_BYTES, Host, distinct, read_hosts
from qmdd.runtime.errors import DeployError


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("box", Host("box")),
        ("me@box", Host("me@box")),
        ("me@box:", Host("me@box")),
        ("box:/opt/qmdd", Host("box", "/opt/qmdd")),
        ("box:a b:c", Host("box", "a b:c")),
        ("me@[fe80::1%eth0]:x", Host("me@fe80::1%eth0", "x")),
        ("[::1]", Host("::1")),
        ("ssh://box", Host("box")),
        ("ssh://me@box:2222", Host("me@box", FOLDER, 2222)),
        ("ssh://me@box:2222/opt/a b", Host("me@box", "/opt/a b", 2222)),
        ("ssh://[::1]:22/x", Host("::1", "/x", 22)),
        ("192.168.1.20:$(id)", Host("192.168.1.20", "$(id)")),
        ("first.last@box-2_a.example", Host("first.last@box-2_a.example")),
    ],
)
def test_what_is_a_host(text: str, host: Host) -> None:
    assert Host.parse(text) == host


@pytest.mark.parametrize(
    "text",
    ["", ":x", "-box", "me@-box", "-me@box", "a b", "a;b", "a$(id)", "a`id`", "a|b", "a&b", "a'b",
     'a"b', "a\\b", "a\nb", "box\n", "a%hb", "@box", "me@", "[box", "ssh://", "ssh:///x",
     "[::1;id]",
     "ssh://box:99999", "ssh://box:0", "ssh://box:x", "box:a\0b", "ünï", "a*b", "a>b", "~box"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(DeployError):
        Host.parse(text)


@given(st.text(max_size=40))
def test_whatever_is_taken_means_nothing_to_a_shell(text: str) -> None:
    try:
        host = Host.parse(text)
    except DeployError:
        return
    assert shlex.quote(host.destination.replace("%", "")) == host.destination.replace("%", "")
    assert not host.destination.startswith("-")
    arguments = ssh_arguments(host)
    assert arguments[-2:] == ["--", host.destination]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_the_devices_python_is_one_word_for_its_shell(python: str) -> None:
    words = shlex.split(bootstrap(python))
    assert words[:4] == ["exec", python, "-I", "-c"]
    assert len(words) == 5
    assert "'" not in words[4]
    assert "!" not in words[4]  # csh's history is alive inside quotes
    compile(words[4], "start", "exec")


def test_a_list_of_hosts(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# ours\n\nbox\n  me@box:/a#b  # a comment\n", encoding="utf-8")
    assert read_hosts(path) == [Host("box"), Host("me@box", "/a#b")]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"box\n-x\n", "hosts, line 2: '-x'"),
        (b"# none\n", "names no host"),
        (b"\xff\xfe", "not text"),
        (b"#" * (MAX_BYTES + 1), "larger than 1 MiB"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(data)
    with pytest.raises(DeployError, match=says):
        read_hosts(path)
    with pytest.raises(DeployError, match="cannot be read"):
        read_hosts(tmp_path / "none")


def test_one_named_twice() -> None:
    with pytest.raises(DeployError, match="box: named twice"):
        distinct([Host("box"), Host("a"), Host("box")])
    assert len(distinct([Host("box"), Host("box", "other")])) == 2
