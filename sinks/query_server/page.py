"""The dashboard at `/`: files that a browser may keep, and that tell nothing of the pipeline themselves."""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from pipeline.component import Server

FOLDER = Path(__file__).parent / "dashboard"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Everything is of this device; no script stands in the page, so none that gets into it is run.
POLICY = "; ".join(
    f"{what} {source}"
    for what, source in {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }.items()
)


def mount(server: Server) -> None:
    """The page, and what it loads. They need no token: the page asks for it."""
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in TYPES:
            path = "/" if file.name == "index.html" else f"/dashboard/{file.name}"
            server.route("GET", path, _handler(file), public=True)


def _handler(file: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """One that reads its file when it is first asked for, and keeps it packed."""
    made: list[tuple[bytes, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        """The dashboard, or a file that it loads."""
        if not made:
            data = file.read_bytes()
            made.append((gzip.compress(data, 9, mtime=0), f'"{blake2b(data, digest_size=8).hexdigest()}"'))
        packed, tag = made[0]
        # Asked for again each time, and sent only when it has changed: after an update nobody sees half of the old page.
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        headers |= {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        body = packed
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
        else:
            body = gzip.decompress(packed)
        return web.Response(body=body, content_type=TYPES[file.suffix], charset="utf-8", headers=headers)

    return handler
