"""The devices of the tests behave as real ones do, and break as told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .lab import Lab

#: Ends a client whose line is dead after a second or two.
ALIVE = ("-o", "ConnectTimeout=1", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1")


def test_a_command_runs_in_the_devices_home_through_its_shell(ssh_lab: Lab) -> None:
    device = ssh_lab.device("device-a")
    done = ssh_lab.ssh("device-a", "cat > 'a b'; echo $HOME; pwd; echo \"$0\"; exit 7", b"words")
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout.decode().split() == [str(device.home), str(device.home), "/bin/sh"]
    assert (device.home / "a b").read_bytes() == b"words"
    assert device.commands() == ["cat > 'a b'; echo $HOME; pwd; echo \"$0\"; exit 7"]
    assert device.line.to_server > 1000  # keys and words, encrypted


def test_devices_have_homes_shells_and_greetings_of_their_own(ssh_lab: Lab) -> None:
    one, two = ssh_lab.device("device-a"), ssh_lab.device("device-b")
    assert one.home != two.home
    two.login(before="echo 'Welcome to this box!'")
    assert ssh_lab.ssh("device-a", "echo yes").stdout == b"yes\n"
    assert ssh_lab.ssh("device-b", "echo yes").stdout == b"Welcome to this box!\nyes\n"


def test_files_are_copied_by_the_systems_own_client(ssh_lab: Lab, tmp_path: Path) -> None:
    device = ssh_lab.device()
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 100)
    line = ("scp", "-q", "-F", str(ssh_lab.config), str(source), "device-a:copy")
    subprocess.run(line, check=True, timeout=60)
    assert (device.home / "copy").read_bytes() == source.read_bytes()
    assert device.line.to_server > 25_600


def test_pythons_of_a_device(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    ask = "python3 -I -c 'import sys; print(sys.version_info[:2], sys.version_info.major)'"
    assert b"(3, 1" in ssh_lab.ssh("device-a", ask).stdout
    device.old_python("3.7.17")
    assert ssh_lab.ssh("device-a", ask).stdout == b"(3, 7) 3\n"
    assert ssh_lab.ssh("device-a", "python3 --version").stdout == b"Python 3.7.17\n"
    versions = "python3 -c 'import platform; print(platform.python_version())'"
    assert ssh_lab.ssh("device-a", versions).stdout == b"3.7.17\n"
    device.without("python")
    assert ssh_lab.ssh("device-a", "python3 --version").returncode == 127
    assert ssh_lab.ssh("device-a", "ls -d .").stdout == b".\n"


def test_a_new_host_key_is_not_trusted(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    device.new_host_key()
    done = ssh_lab.ssh("device-a", "true")
    assert done.returncode == 255
    assert b"REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
    device.trust()
    assert ssh_lab.ssh("device-a", "true").returncode == 0


def test_a_line_is_cut_and_mended(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    device.line.cut_after(100_000)
    before = device.line.to_server
    done = ssh_lab.ssh("device-a", "cat > data", bytes(1_000_000))
    assert done.returncode == 255
    assert device.line.to_server - before == 100_000
    assert ssh_lab.ssh("device-a", "true").returncode == 255
    device.line.mend()
    assert ssh_lab.ssh("device-a", "true").returncode == 0
    device.line.cut_after(100_000, once=True)
    assert ssh_lab.ssh("device-a", "cat > data", bytes(1_000_000)).returncode == 255
    assert ssh_lab.ssh("device-a", "true").returncode == 0


def test_a_line_refuses_and_is_mended(ssh_lab: Lab) -> None:
    line = ssh_lab.device().line
    line.refuse()
    assert b"Connection refused" in ssh_lab.ssh("device-a", "true").stderr
    line.mend()
    assert ssh_lab.ssh("device-a", "true").returncode == 0


def test_a_dead_line_answers_nothing_and_closes_nothing(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    device.line.stall_after(20_000)
    command = ("ssh", "-F", str(ssh_lab.config), *ALIVE, "device-a", "cat > data")
    done = subprocess.run(
        command, input=bytes(100_000), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 255
    assert b"not responding" in done.stderr
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
    assert b"timed out" in done.stderr
    device.line.mend()
    assert ssh_lab.ssh("device-a", "true").returncode == 0


def test_a_slow_line_is_slow(ssh_lab: Lab) -> None:
    line = ssh_lab.device().line
    line.slow(50_000)
    with pytest.raises(subprocess.TimeoutExpired):
        ssh_lab.ssh("device-a", "cat > data", bytes(1_000_000), timeout=1)
    line.mend()
    assert ssh_lab.ssh("device-a", "cat > data", bytes(1_000_000), timeout=30).returncode == 0


def test_a_full_disk_and_a_read_only_one(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    place = device.home / "small"
    why = device.mount(place, "size=64k")
    if why:
        pytest.skip(f"a small disk needs a tmpfs, which root can mount: {why}")
    done = ssh_lab.ssh("device-a", "head -c 100000 /dev/zero > small/data")
    assert b"No space left" in done.stderr
    device.read_only(place)
    assert b"Read-only" in ssh_lab.ssh("device-a", "touch small/other").stderr


def test_what_runs_on_a_device_is_seen_and_ended_with_it(ssh_lab: Lab) -> None:
    device = ssh_lab.device()
    assert ssh_lab.ssh("device-a", "(sleep 60 >&- 2>&- <&- &) ; sleep 0.1").returncode == 0
    assert "sleep 60" in device.processes().values()
    device.close()
    assert device.processes() == {}
