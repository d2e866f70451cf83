"""The web application: one page, what it is made of, and ``POST /api/score``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError, RuntimeFailure
from ..images import SENT
from .answer import Answerer
from .body import Refused, read_image
from .guard import Guard
from .turns import Full, Turns

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

PAGE = Path(__file__).parent / "page"
#: What the page is made of; nothing else is served.
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: Seconds after which one that was turned away may come again.
_COME_AGAIN = 2


def demo_app(
    answerer: Answerer,
    *,
    host: str = "127.0.0.1",
    turns: Turns,
    say: Callable[[str], None] | None = None,
) -> ASGIApp:
    """The application, for any ASGI server.

    Args:
        answerer: scores images.
        host: what the server listens on, see :class:`~.guard.Guard`.
        turns: how much is done at once.
        say: called with a line on each failure that is the server's own.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    tell = say or (lambda _text: None)

    def told(status: int, text: str) -> JSONResponse:
        later = {"retry-after": str(_COME_AGAIN)} if status == 503 else None
        return JSONResponse({"error": text}, status, headers=later)

    def file(_request: Request, content: bytes, kind: str) -> Response:
        return Response(content, media_type=kind)

    def about(_request: Request) -> Response:
        return JSONResponse(answerer.about())

    async def score(request: Request) -> Response:
        picture = request.query_params.get("npr") == "1"
        try:
            with turns.place():
                data = await read_image(request.headers, request.stream())
                answer = functools.partial(answerer.answer, data, picture=picture)
                return JSONResponse(await turns.work(answer))
        except ClientDisconnect:
            return told(400, "the connection ended before all was sent")  # nobody reads it
        except Full:
            return told(503, "busy with other images; send it again in a moment")
        except Refused as error:
            return told(error.status, str(error))
        except ImageError as error:
            return told(422, str(error).removeprefix(f"{SENT}: "))
        except (RuntimeFailure, MemoryError) as error:
            text = str(error) or "not enough memory"
            tell(text)
            return told(500, text)
        except Exception as error:  # noqa: BLE001 - one image must not end the server
            tell(f"unexpected {type(error).__name__}: {error}; this is a defect of qmdd")
            return told(500, "the server failed at this image; its terminal says why")

    def nowhere(_request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return told(status, "no such address, or not by this method; see / and POST /api/score")

    routes = [Route("/api/bundle", about), Route("/api/score", score, methods=["POST"])]
    for path, (name, kind) in _FILES.items():
        content = (PAGE / name).read_bytes()
        routes.append(Route(path, functools.partial(file, content=content, kind=kind)))
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: nowhere}), host)
