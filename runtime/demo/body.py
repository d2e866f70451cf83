"""The bytes that are sent, held in memory, and no more of them than allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

#: An image file may have so many bytes.
MAX_BYTES = 10 << 20
#: Of what is too large, so much is read and thrown away: a sender that is cut off while it sends
#: sees a broken connection, and not the answer.
_LISTEN_TO = 64 << 20
#: Seconds that sending may take.
PATIENCE = 30.0


class Refused(Exception):
    """What was sent is not taken; the text is for the sender.

    Args:
        status: of HTTP.
        text: why, and what to do.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_image(
    headers: Mapping[str, str], chunks: AsyncIterator[bytes], patience: float = PATIENCE
) -> bytes:
    """The body of a request: an image file's bytes as they are.

    Raises:
        Refused: a form, nothing, too much, or too slowly.
    """
    import anyio

    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        with anyio.fail_after(patience):
            if kind.startswith("multipart/"):
                await _listen(chunks, headers)
                raise Refused(
                    415, "send the image itself, not a form: curl --data-binary @photo.jpg URL"
                )
            return await _read(headers, chunks)
    except TimeoutError as error:
        raise Refused(408, f"not sent within {patience:g} seconds; send it again") from error


async def _read(headers: Mapping[str, str], chunks: AsyncIterator[bytes]) -> bytes:
    if _announced(headers) > MAX_BYTES:
        await _listen(chunks, headers)
        raise _too_large()
    found = bytearray()
    async for chunk in chunks:
        found += chunk
        if len(found) > MAX_BYTES:
            await _listen(chunks, headers)
            raise _too_large()
    if not found:
        raise Refused(400, "nothing was sent; the body must be an image file's bytes")
    return bytes(found)


def _announced(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "")
    # Of more digits it is more than anybody sends, and more than int() takes.
    return int(text[:20]) if text.isascii() and text.isdigit() else 0


async def _listen(chunks: AsyncIterator[bytes], headers: Mapping[str, str]) -> None:
    """Read on, and keep nothing; of an endless body only the beginning."""
    if _announced(headers) > _LISTEN_TO:
        return
    count = 0
    async for chunk in chunks:
        count += len(chunk)
        if count > _LISTEN_TO:
            return


def _too_large() -> Refused:
    return Refused(413, f"larger than {MAX_BYTES >> 20} MiB; send a smaller file, or a crop of it")
