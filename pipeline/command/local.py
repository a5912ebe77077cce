"""The pipeline of a file, asked over HTTP where it runs on this machine; what subcommands share that speak to it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.config import Config

ANSWER_S = 30.0


class Silent(Exception):
    """Nothing answers, or it refuses; the text is for the person who asked."""


def url(config: Config) -> str:
    """Where this machine reaches the server."""
    host, port = config.server.address()
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if config.server.tls else 'http'}://{shown}:{port}"


def ask(
    config: Config, path: str, body: Any = None, *, why: str, timeout: float = ANSWER_S, refused: bool = False
) -> Any:
    """What is answered to a GET or, with a body, to a POST. Silent if nothing does, or not with 200.

    `why`: what it takes a running pipeline for. `refused`: another status than 200 is an answer, too (as of /health).
    """
    from http.client import HTTPException
    from urllib import request
    from urllib.error import HTTPError

    from pipeline.identity import HEADER, identity

    headers = {HEADER: identity(config)}
    if config.server.token:
        headers["Authorization"] = f"Bearer {config.server.token.reveal()}"
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        # No proxy: what is asked runs here.
        opener = request.build_opener(request.ProxyHandler({}), request.HTTPSHandler(context=_tls(config)))
        with opener.open(request.Request(url(config) + path, data, headers), timeout=timeout) as response:
            return json.loads(response.read())
    except HTTPError as error:
        if refused and error.headers.get_content_type() == "application/json":
            return json.loads(error.read())
        raise Silent(f"{url(config)} answers {error.code}: {_said(error.read())}{_hint(config, error.code)}") from None
    except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        again = f"Start it with `headwater run {config.path}`, then ask again"
        way_out = again if can_be_asked(config) else no_server(config)
        raise Silent(f"nothing answers at {url(config)} ({reason}): {why}. {way_out}") from error


def can_be_asked(config: Config) -> bool:
    """Or so it seems, where only [server] was read."""
    return not config.nodes or any(
        node.kind == "sink" and node.type == "query_server" for node in config.nodes.values()
    )


def no_server(config: Config) -> str:
    return (
        f"{config.path} has no query_server, which is what a running pipeline is asked through: add one, such as\n"
        '    [sinks.local]\n    type = "query_server"\n    inputs = ["SOME_STREAM"]\nand start it again'
    )


def _hint(config: Config, code: int) -> str:
    """What a refusal may come of."""
    if code in (401, 403):
        return f" (the token that {config.path} gives under [server] is not the one of the pipeline that runs there)"
    return f". {no_server(config)}" if code == 404 and not can_be_asked(config) else ""


def _said(body: bytes) -> str:
    """What a refusal says, in problem+json or otherwise."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")


def _tls(config: Config) -> Any:
    """Trusts the very certificate that the server has, whoever signed it and for whatever name: the file says so."""
    import ssl

    if config.server.tls is None:
        return None
    context = ssl.create_default_context(cafile=str(config.server.tls.certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
