"""A TCP line to a server that counts what goes over it, and breaks as lines break."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

_CHUNK = 16384
#: Seconds between two looks at whether a silent line has been closed.
_TICK = 0.05


class Line:
    """A port on loopback that leads to ``server``, another one.

    ``to_server`` and ``to_client`` count bytes (encrypted, as they pass), ``calls`` connections.
    Every fault below lasts until :meth:`mend`.
    """

    def __init__(self, server: int) -> None:
        self.server = server
        self.to_server = 0
        self.to_client = 0
        self.calls = 0
        self._limit: int | None = None
        self._once = False
        self._stalled = False
        self._rate: float | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def cut_after(self, count: int, *, once: bool = False) -> None:
        """Cut after ``count`` more bytes to the server; then every new connection at once.

        With ``once`` the line works again right after the cut.
        """
        self._limit, self._once = self.to_server + count, once

    def stall_after(self, count: int) -> None:
        """A dead line: after ``count`` more bytes nothing passes, and nothing is closed.

        New connections are accepted, and never answered.
        """
        self._limit, self._stalled = self.to_server + count, True

    def slow(self, rate: float) -> None:
        """Let no more than ``rate`` bytes a second through to the server."""
        self._rate = rate

    def refuse(self) -> None:
        """Cut what is open and refuse new connections (the port stays ours)."""
        # A port that is bound, and not listened to, refuses.
        place = socket.socket()
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", self.port))
        old, self._listener = self._listener, place
        _shut(old)
        self.hang_up()

    def hang_up(self) -> None:
        """Cut every open connection; new ones work."""
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _hang_up(end)

    def mend(self) -> None:
        """Work again: new connections do; those that stalled are cut."""
        stalled, self._stalled = self._stalled, False
        self._limit, self._once, self._rate = None, False, None
        if stalled:
            self.hang_up()
        if self._listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
            self._listen()

    def close(self) -> None:
        """End it, with all its connections."""
        self._closed = True
        _shut(self._listener)
        self.hang_up()

    def _listen(self) -> None:
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = listener.accept()
                self.calls += 1
                if self._spent() and not self._stalled:
                    _shut(near)
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.server))
                except OSError:  # the server is stopped
                    _shut(near)
                    continue
                threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with self._lock:
            self._open |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
        back.start()
        self._pump(near, far, True)
        back.join()
        with self._lock:
            self._open -= {near, far}
        near.close()
        far.close()

    def _spent(self) -> bool:
        return self._limit is not None and self.to_server >= self._limit

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if not self._pass(chunk, sink, up):
                    _hang_up(source)
                    break
            # One direction has ended; what is under way in the other must still arrive.
            sink.shutdown(socket.SHUT_WR)

    def _pass(self, chunk: bytes, sink: socket.socket, up: bool) -> bool:
        """Hand ``chunk`` on; False where the line was cut in it."""
        with self._lock:
            if up and self._limit is not None:
                chunk = chunk[: max(0, self._limit - self.to_server)]
            if up:
                self.to_server += len(chunk)
            else:
                self.to_client += len(chunk)
        if up and self._rate:
            time.sleep(len(chunk) / self._rate)
        if up or not (self._stalled and self._spent()):
            sink.sendall(chunk)
        if not self._spent():
            return True
        while self._stalled and not self._closed:
            time.sleep(_TICK)
        if self._once:
            self._limit, self._once = None, False
        _hang_up(sink)
        return False


def _hang_up(end: socket.socket) -> None:
    """Wake whoever reads from ``end``, on either side; its own thread closes it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


def _shut(end: socket.socket) -> None:
    _hang_up(end)
    end.close()
