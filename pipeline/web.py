"""What all handlers of HTTP requests share: bodies within limits, JSON answers, and problems as RFC 9457 has them.

Exception
  HttpProblem     the answer is an error; the server turns it into `application/problem+json`

Nothing here imports aiohttp before a request has come: `check` constructs sources and sinks without it.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

from pipeline.frame import rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiohttp import StreamReader, web

    from pipeline.frame import Frame, Schema

BODY_S = 60.0  # a body must have arrived whole by then: 1 MB on a line of 20 kB/s takes 50 s
# Large bodies whose end has not come yet, of all connections together: 500 clients that stop in the middle of one must not
# fill the memory. One that is small is always taken, or they would keep everyone else out.
MOST_ON_THEIR_WAY = 32_000_000  # bytes
SMALL_BODY = 64_000
_ENCODINGS = {"", "identity", "gzip", "deflate"}  # of a body; aiohttp undoes these


class HttpProblem(Exception):
    """An error to answer with; `more` are further members of its body."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers
        self.more = more

    def response(self) -> web.Response:
        from aiohttp.web import Response

        body = problem_body(self.status, self.detail, **self.more)
        return Response(status=self.status, body=body, content_type="application/problem+json", headers=self.headers)


def problem_body(status: int, detail: str, **more: Any) -> bytes:
    title = HTTPStatus(status).phrase
    told = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    try:
        return orjson.dumps(told)
    except TypeError:  # what a client wrote and is told again need not be text
        shown = {k: v.encode(errors="replace").decode() if isinstance(v, str) else v for k, v in told.items()}
        return orjson.dumps(shown)


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return encoded(orjson.dumps(value), status)


def encoded(body: bytes, status: int = 200) -> web.Response:
    """An answer that is JSON already."""
    from aiohttp.web import Response

    return Response(status=status, body=body, content_type="application/json")


async def read_body(request: web.Request, limit: int, within_s: float = BODY_S) -> bytes:
    """The whole body, unpacked. HttpProblem: 413 beyond `limit` bytes, 415 if packed in a way that is not known,
    400 if it was cut off or is not what it says, 408 if it does not come, 503 if too much is on its way already."""
    if request.headers.get("Content-Encoding", "").lower() not in _ENCODINGS:
        raise HttpProblem(415, "a body is gzip, deflate or plain", {"Accept-Encoding": "gzip, deflate"})
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    content = request.content
    if content.is_eof() and content.exception() is None:
        body = content.read_nowait()  # it came along with its head, as most do: no timer is needed
    else:
        body = await _arriving(content, limit, within_s)
    if len(body) > limit:
        raise _too_large(limit)
    return body


class _OnTheirWay:
    """Bytes of large bodies that are held while they come, of all requests of this process."""

    def __init__(self) -> None:
        self.bytes = 0

    def add(self, size: int) -> None:
        if self.bytes + size > MOST_ON_THEIR_WAY:
            raise HttpProblem(503, "too many large bodies are on their way", {"Retry-After": "5"})
        self.bytes += size


_on_their_way = _OnTheirWay()


async def _arriving(content: StreamReader, limit: int, within_s: float) -> bytes:
    from aiohttp import ClientError
    from aiohttp.http_exceptions import HttpProcessingError
    from aiohttp.web import RequestPayloadError

    parts = []
    size = counted = 0
    try:
        async with asyncio.timeout(within_s):
            while part := await content.readany():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                if size > SMALL_BODY:
                    _on_their_way.add(size - counted)
                    counted = size
    except TimeoutError:
        raise HttpProblem(408, f"the body did not come within {within_s:g} s") from None
    except (RequestPayloadError, ClientError, HttpProcessingError) as error:
        raise HttpProblem(400, f"the body cannot be read: {' '.join(str(error).split())}") from None
    finally:
        _on_their_way.bytes -= counted
    return b"".join(parts)


def _too_large(limit: int) -> HttpProblem:
    return HttpProblem(413, f"a body may have at most {limit:,} bytes, unpacked")


def latest_values(latest: Frame, schema: Schema, names: Sequence[str]) -> Any:
    """`{"s1": 21.5}`: the newest value of every key; an object of values where there are several fields.

    Of a stream without a key: the newest row's values themselves. Times are left out; `latest` has them.
    """
    found: dict[str, Any] = {}
    for row in rows(latest, schema, names):
        key = row.pop(schema.key) if schema.key else ""
        del row["time"]
        found[key] = next(iter(row.values())) if schema.key and len(row) == 1 else row
    return found if schema.key else found.get("", {})
