"""The server: a socket, the application, and an end when it is asked for."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import SessionError, not_installed

if TYPE_CHECKING:
    from .answer import Answerer

#: Connections beyond those that may wait: the page's own files.
_SPARE = 64
#: Seconds that work in hand may take when the server is to end.
_LAST_WORK = 3


def require_server() -> None:
    """Raise :class:`SessionError` if what serves is not installed."""
    for name in ("starlette", "uvicorn"):
        try:
            import_module(name)
        except ImportError as error:
            raise SessionError(not_installed(name, "demo", error=error)) from error


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host``; port 0: one that is free.

    Raises:
        SessionError: no such address here, or the port is taken or not allowed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise SessionError(f"{host}: no address of this machine; choose another --host") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_SPARE)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRNOTAVAIL:
            text = f"{host}: no address of this machine; choose another --host"
        else:
            text = f"port {port} of {host}: {error.strerror or error}; choose another --port"
        raise SessionError(text) from error
    return made


def url_of(sock: socket.socket, host: str) -> str:
    """Where a browser finds what ``sock`` serves."""
    port = sock.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def serve(
    answerer: Answerer,
    sock: socket.socket,
    *,
    host: str,
    at_once: int,
    queue: int,
    say: Callable[[str], None],
) -> None:
    """Answer until SIGINT or SIGTERM; what is in hand then has a few seconds more."""
    import uvicorn

    from .app import demo_app
    from .turns import Turns

    class Server(uvicorn.Server):
        """Ends by itself at a signal; its base would raise the signal again where it ends."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            before = {
                number: signal.signal(number, self.handle_exit)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    # It would tell with a traceback of an upload that was cut off at the end; what fails is told
    # by the application.
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    logging.getLogger("uvicorn").propagate = False
    answerer.warm_up()
    app = demo_app(answerer, host=host, turns=Turns(at_once, queue), say=say)
    Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=at_once + queue + _SPARE,
            timeout_graceful_shutdown=_LAST_WORK,
        )
    ).run(sockets=[sock])
