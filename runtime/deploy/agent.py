"""What runs on the device while something is deployed to it.

This file is sent over ssh as it is and run by the device's own Python 3.8 or newer, where nothing
of qmdd is installed yet: it imports the standard library only. It is asked one thing at a time, as
a line of JSON on standard input (before it, where bytes are sent, their number), and answers with
lines of JSON. What it is asked is data: names of files and arguments of programs never pass through
a shell.

If the other side is gone, or silent for :data:`SILENCE` seconds, it ends whatever it has started
and itself, which frees the lock.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: The other side says something at least every few seconds, see ``ALIVE`` in connection.py.
SILENCE = 60.0
#: A line is a request, never data: longer ones are not ours.
MAX_LINE = 16 << 20
#: Of a program's output, or of a file that is read.
MAX_BYTES = 16 << 20
MARKER = ".qmdd"
_BLOCK = 1 << 20
_STATE = "deployed.json"
#: Where what is removed waits for its end.
_GONE = "gone"


class Gone(Exception):
    """Nobody listens any more."""


class Refused(Exception):
    """What cannot be done, in words for the user."""


class Agent:
    """One connection's work, in one folder of the device."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.root = ""
        self.lock = -1
        #: Hashes of objects that were found right since the lock was taken.
        self.whole: set[str] = set()

    # What comes in and goes out.

    def fill(self, patience: float = SILENCE) -> bool:
        """Wait for more input; false if there is none in time."""
        ready, _, _ = select.select([0], [], [], patience)
        if not ready:
            return False
        block = os.read(0, _BLOCK)
        if not block:
            raise Gone
        self.held += block
        return True

    def line(self) -> bytes | None:
        """The next line, without its end, if a whole one is there."""
        end = self.held.find(b"\n")
        if end < 0:
            if len(self.held) > MAX_LINE:
                raise Gone
            return None
        found = bytes(self.held[:end])
        del self.held[: end + 1]
        return found

    def request(self) -> dict[str, Any]:
        """The next request; signs of life are passed over."""
        while True:
            found = self.line()
            if found is None:
                if not self.fill():
                    raise Gone
            elif found:
                asked: Any = json.loads(found)
                if not isinstance(asked, dict) or not isinstance(asked.get("do"), str):
                    raise ValueError("it names nothing to do")
                return asked

    def payload(self, count: int) -> Iterator[bytes]:
        """The next ``count`` bytes, in blocks."""
        while count:
            while not self.held:
                if not self.fill():
                    raise Gone
            block = bytes(self.held[:count])
            del self.held[: len(block)]
            count -= len(block)
            yield block

    def say(self, **answer: object) -> None:
        """Send a line."""
        data = json.dumps(answer).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            raise Gone from None

    def path(self, *names: str) -> str:
        """A place in the folder; never outside it."""
        parts = [part for name in names for part in name.split("/")]
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise Refused("no name inside the folder: " + "/".join(names))
        return os.path.join(self.root, *parts)

    # What can be asked.

    def do_open(self, folder: str, create: bool = True) -> dict[str, Any]:
        """Take the folder: made if it is not there, refused if others' files are in it."""
        place = os.path.expanduser(folder)
        if place.startswith("~"):
            raise Refused(f"{folder}: there is no such user; name the folder from / on")
        self.root = os.path.abspath(place)
        marker = os.path.join(self.root, MARKER)
        if not create and not os.path.exists(marker):
            raise Refused(f"{self.root}: nothing was deployed there")
        os.makedirs(self.root, exist_ok=True)
        if not os.path.exists(marker) and os.listdir(self.root):
            raise Refused(
                f"{self.root} holds other files (there is no {MARKER} in it); choose another folder"
            )
        self.lock = os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self.lock, 100).decode("ascii", "replace").strip()
            raise Refused(
                f"{self.root}: another deployment is at work there (process "
                f"{holder or 'unknown'}); wait for it"
            ) from None
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n".encode("ascii"), 0)
        for name in ("objects", "releases", "envs"):
            os.makedirs(self.path(name), exist_ok=True)
        shutil.rmtree(self.path(_GONE), ignore_errors=True)  # of a removal that was broken off
        return {"root": self.root, "free": shutil.disk_usage(self.root).free}

    def do_releases(self) -> dict[str, Any]:
        """Finished releases, and the current one's name."""
        known: dict[str, Any] = {}
        for name in sorted(os.listdir(self.path("releases"))):
            try:
                with open(self.path("releases", name, _STATE), encoding="utf-8") as stream:
                    known[name] = json.loads(stream.read(_BLOCK))
            except (OSError, ValueError, RecursionError):
                known[name] = None
        try:
            current = os.path.basename(os.readlink(os.path.join(self.root, "current")))
        except OSError:
            current = None
        return {"releases": known, "current": current}

    def do_have(self, objects: dict[str, int]) -> dict[str, Any]:
        """Of each object, how many bytes of it are here: all only if its hash is right."""
        found = {}
        for name, size in objects.items():
            whole, part = self.path("objects", name), self.path("objects", name + ".part")
            for path in (whole, part):
                if name not in self.whole and os.path.exists(path):
                    self.settle(path, name, size)
            if name in self.whole:
                found[name] = size
            elif os.path.exists(part):
                found[name] = os.path.getsize(part)
        return {"have": found}

    def settle(self, path: str, name: str, size: int) -> None:
        """Keep an object's file if it is right or the beginning of one; drop it otherwise."""
        held = os.path.getsize(path)
        if held < size and path.endswith(".part"):
            return
        if held == size and self.hash_of(path) == name:
            os.replace(path, self.path("objects", name))
            self.whole.add(name)
        else:
            os.unlink(path)

    def do_put(self, name: str, size: int, offset: int, count: int) -> dict[str, Any]:
        """Take ``count`` more bytes of an object, from ``offset``; the last ones make it whole."""
        if min(size, offset, count) < 0:
            raise ValueError("a size below zero")
        part = self.path("objects", name + ".part")
        blocks = self.payload(count)
        try:
            with open(part, "r+b" if offset else "wb") as stream:
                stream.seek(offset)
                stream.truncate()
                for block in blocks:
                    stream.write(block)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError:
            # The rest is on its way: what follows it must be found where a request is expected.
            for _ in blocks:
                pass
            raise
        if offset + count < size:
            return {}
        self.settle(part, name, size)
        if name not in self.whole:
            raise Refused("a file arrived damaged (its SHA-256 differs); deploy again")
        return {}

    def do_link(self, folder: Sequence[str], files: dict[str, str]) -> dict[str, Any]:
        """Make ``folder`` anew out of objects; ``files`` maps names in it to hashes."""
        place = self.path(*folder)
        shutil.rmtree(place, ignore_errors=True)
        os.makedirs(place)
        for name, held in files.items():
            target = self.path(*folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            source = self.path("objects", held)
            try:
                os.link(source, target)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK):
                    raise
                shutil.copyfile(source, target)  # FAT and some network file systems have no links
        return {}

    def do_write(self, path: Sequence[str], text: str, mode: int = 0o666) -> dict[str, Any]:
        """Write a small file, whole or not at all; what was made before it is on the disk by then.

        It says that something is complete: a power cut must not leave it without that.
        """
        os.sync()  # what pip has installed, links of a release
        target = self.path(*path)
        work = target + ".new"
        handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(work, target)
        self.sync(os.path.dirname(target))
        return {}

    def do_read(self, path: Sequence[str]) -> dict[str, Any]:
        """A small file's bytes, base64; ``None`` if there is none."""
        try:
            with open(self.path(*path), "rb") as stream:
                data = stream.read(MAX_BYTES)
        except FileNotFoundError:
            return {"data": None}
        return {"data": base64.b64encode(data).decode("ascii")}

    def do_point(self, path: Sequence[str], target: str) -> dict[str, Any]:
        """Let the link ``path`` lead to ``target``, in one step; what it names is on the disk."""
        os.sync()
        place = self.path(*path)
        work = place + ".new"
        if os.path.lexists(work):
            os.unlink(work)
        os.symlink(target, work)
        os.replace(work, place)
        self.sync(os.path.dirname(place))
        return {}

    def sync(self, folder: str) -> None:
        """Let the names in a folder be on the disk."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # file systems that cannot
                raise
        finally:
            os.close(handle)

    def do_keep_only(self, folder: Sequence[str], starts: Sequence[str]) -> dict[str, Any]:
        """Remove the files of ``folder`` whose names begin with none of ``starts``."""
        place = self.path(*folder)
        for name in os.listdir(place):
            if not name.startswith(tuple(starts)):
                os.unlink(os.path.join(place, name))
        return {}

    def do_remove(self, path: Sequence[str]) -> dict[str, Any]:
        """Remove a folder or file, if it is there; never what runs."""
        place = self.path(*path)
        if os.path.realpath(place) == os.path.realpath(os.path.join(self.root, "current")):
            raise Refused(f"{place} is the current release")
        if os.path.lexists(place):
            # Out of sight first, in one step: a half of it would be taken for a whole one.
            gone = self.path(_GONE)
            os.makedirs(gone, exist_ok=True)
            os.replace(place, os.path.join(gone, str(time.time_ns())))
            shutil.rmtree(gone)
        return {}

    def do_list(self, path: Sequence[str]) -> dict[str, Any]:
        """Names in a folder."""
        return {"names": sorted(os.listdir(self.path(*path)))}

    def do_manifest(self, folder: Sequence[str], name: str) -> dict[str, Any]:
        """Names of files that the manifest of ``folder`` lists and that are missing or changed."""
        try:
            with open(self.path(*folder, name), "rb") as stream:
                listed = json.loads(stream.read(MAX_BYTES))["files"]
            expected = {str(key): str(entry["sha256"]) for key, entry in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {"wrong": [name]}
        wrong: list[str] = []
        for key, digest in expected.items():
            try:
                if self.hash_of(self.path(*folder, key)) != digest:
                    wrong.append(key)
            except (OSError, ValueError, Refused):  # not there, or no name that a file can have
                wrong.append(key)
        return {"wrong": wrong}

    def do_sweep(self, keep: Sequence[str]) -> dict[str, Any]:
        """Remove objects that no release is linked to and ``keep`` does not name; broken copies."""
        place = self.path("objects")
        for name in os.listdir(place):
            path = os.path.join(place, name)
            if os.stat(path).st_nlink == 1 and name not in keep:
                os.unlink(path)
        return {}

    def do_facts(self, source: str, folder: str | None) -> dict[str, Any]:
        """What the source of :mod:`qmdd.runtime.device.probe` finds out about this machine."""
        space: dict[str, Any] = {"__name__": "probe"}
        exec(compile(source, "probe", "exec"), space)  # nosec B102 # noqa: S102
        return {"facts": space["collect"](folder)}

    def do_usable(self, path: Sequence[str]) -> dict[str, Any]:
        """Whether a program is there, links followed."""
        return {"usable": os.access(self.path(*path), os.X_OK)}

    def do_run(
        self, arguments: list[str], timeout: float, environment: dict[str, str], folder: str
    ) -> dict[str, Any]:
        """Run a program to its end; its standard output is returned, its words are sent on."""
        child = subprocess.Popen(  # noqa: S603
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder or self.root,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        try:
            return self.follow(child, time.monotonic() + timeout)
        finally:
            # Whatever it has started goes with it, however this ends.
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def follow(self, child: subprocess.Popen[bytes], end: float) -> dict[str, Any]:
        """Send on what ``child`` says, until it ends, ``end`` passes or nobody listens."""
        out, heard = bytearray(), time.monotonic()
        assert child.stdout is not None  # noqa: S101 - they are pipes
        assert child.stderr is not None  # noqa: S101
        streams = {child.stdout.fileno(): "out", child.stderr.fileno(): "err"}
        while streams:
            now = time.monotonic()
            if now > end:
                return {"rc": None, "out": ""}
            if now - heard > SILENCE:
                raise Gone
            ready, _, _ = select.select([0, *streams], [], [], 1.0)
            for stream in ready:
                if stream == 0:
                    heard = now
                    self.fill()
                    while self.line() is not None:  # signs of life
                        pass
                    continue
                block = os.read(stream, 1 << 16)
                if not block:
                    del streams[stream]
                elif streams[stream] == "out":
                    out += block
                    if len(out) > MAX_BYTES:
                        raise Refused(f"a program says more than {MAX_BYTES >> 20} MiB")
                else:
                    self.say(words=block.decode("utf-8", "replace"))
        return {"rc": child.wait(), "out": out.decode("utf-8", "replace")}

    def hash_of(self, path: str) -> str:
        """SHA-256 of a file."""
        state = hashlib.sha256()
        with open(path, "rb") as stream:
            while True:
                block = stream.read(_BLOCK)
                if not block:
                    return state.hexdigest()
                state.update(block)

    def serve(self) -> None:
        """Answer until nobody asks."""
        self.say(ready=os.getpid())
        while True:
            try:
                asked = self.request()
                answer = getattr(self, "do_" + asked.pop("do"))(**asked)
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                # What is no request is answered like one that cannot be met.
                self.say(ok=False, refused=f"not understood: {type(error).__name__}: {error}"[:300])
            except Refused as error:
                self.say(ok=False, refused=str(error))
            except OSError as error:
                self.say(
                    ok=False,
                    errno=error.errno,
                    reason=error.strerror or str(error),
                    where=None if error.filename is None else os.fspath(error.filename),
                )
            else:
                self.say(ok=True, **answer)


def main() -> None:
    """Serve, and end quietly when the other side has gone."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    # Folders are meant from the home on, wherever a login went first.
    with contextlib.suppress(OSError):
        os.chdir(os.path.expanduser("~"))
    try:
        Agent().serve()
    except Gone:
        sys.exit(1)


if __name__ in ("__main__", "agent"):
    main()
