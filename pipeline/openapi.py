"""`/openapi.json` and `/docs`: what the routes of this pipeline say of themselves.

The page is made here, from the same document, without a script: it works offline and in every browser, and a policy that
allows nothing but its own style holds for it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from pipeline.api import Operation, Problem, described, operation_of, schemas

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiohttp import web

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

VERSION = "1"  # of the interface: what it answers may grow, and is not renamed or taken away
_IN_PATH = re.compile(r"\{(\w+)[^}]*\}")
_PROBLEM = "application/problem+json"


class Served(Protocol):
    """The server, as far as its description goes."""

    @property
    def routes(self) -> Mapping[tuple[str, str], Handler]: ...
    @property
    def guarded(self) -> bool:
        """Is a token needed?"""
        ...

    @property
    def public(self) -> Collection[Handler]:
        """Handlers that need none all the same."""
        ...

    def route(self, method: str, path: str, handler: Handler) -> bool: ...


def mount(server: Served, name: str) -> None:
    """Describe all that is mounted, now and later."""
    pages = Pages(server, name)
    server.route("GET", "/openapi.json", pages.document)
    server.route("GET", "/docs", pages.page)


class Pages:
    """Both are made when they are first asked for: most pipelines never are."""

    def __init__(self, server: Served, name: str) -> None:
        self.server = server
        self.name = name
        self._made: dict[str, Any] | None = None

    def made(self) -> dict[str, Any]:
        if self._made is None:
            server = self.server
            self._made = document(server.routes, self.name, guarded=server.guarded, public=server.public)
        return self._made

    @described(Operation("This description, as OpenAPI 3.1", answer=dict[str, Any]))
    async def document(self, _: web.Request) -> web.StreamResponse:
        from pipeline.web import answer

        return answer(self.made())

    @described(Operation("This description, as a page", answer=str, given=("text/html",)))
    async def page(self, _: web.Request) -> web.StreamResponse:
        from aiohttp.web import Response

        headers = {"Content-Security-Policy": _POLICY}
        return Response(text=page(self.made()), content_type="text/html", headers=headers)


# --- the document ---------------------------------------------------------------------------------------------------


def document(
    routes: Mapping[tuple[str, str], Any], name: str, *, guarded: bool = False, public: Collection[Any] = ()
) -> dict[str, Any]:
    """OpenAPI 3.1 of these routes."""
    types = _Types()
    paths: dict[str, Any] = {}
    for (method, path), handler in sorted(routes.items(), key=lambda route: (route[0][1], route[0][0])):
        shown = paths.setdefault(_IN_PATH.sub(r"{\1}", path), {})
        shown[method.lower()] = told = _operation(method, path, handler, types)
        if guarded and handler in public:
            told["security"] = []
    types.note(Problem)
    made, components = schemas(types.noted)
    types.fill(made)
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": f"{name} (Headwater)",
            "version": VERSION,
            "description": "Times are RFC 3339 in answers; questions also take numbers since 1970 and `-1h`.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }
    if guarded:
        whole["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
    return whole


class _Types:
    """The types that operations name, and the places where their schemas go once all are known."""

    def __init__(self) -> None:
        self.noted: list[Any] = []
        self.places: list[tuple[dict[str, Any], int]] = []

    def note(self, kind: Any) -> dict[str, Any]:
        place: dict[str, Any] = {}
        self.places.append((place, len(self.noted)))
        self.noted.append(kind)
        return place

    def fill(self, made: list[dict[str, Any]]) -> None:
        for place, index in self.places:
            place.update(made[index])

    def of(self, kind: Any, owner: Any) -> dict[str, Any]:
        """The schema of a type; of a function, what it says of the handler's object."""
        if kind is None:
            return {}
        if not isinstance(kind, type) and callable(kind) and not hasattr(kind, "__origin__"):
            schema: dict[str, Any] = kind(owner)
            return schema
        return self.note(kind)


def _operation(method: str, path: str, handler: Any, types: _Types) -> dict[str, Any]:
    operation = operation_of(handler)
    owner = getattr(handler, "__self__", None)
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _IN_PATH.findall(path)
    ]
    asked = operation.parameters(owner) if callable(operation.parameters) else operation.parameters
    for name, description, kind, repeated in asked:
        schema: dict[str, Any] = types.of(kind, owner)
        if repeated:
            schema = {"type": "array", "items": schema}
        parameters.append({"name": name, "in": "query", "description": description, "schema": schema})
    answered = types.of(operation.answer, owner)
    good = {"content": {media: {"schema": answered if i == 0 else {}} for i, media in enumerate(operation.given)}}
    responses: dict[str, Any] = {
        str(status): {"description": HTTPStatus(status).phrase, **good} for status in operation.statuses
    }
    responses["default"] = {"description": "An error", "content": {_PROBLEM: {"schema": types.note(Problem)}}}
    told: dict[str, Any] = {
        "operationId": f"{method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path).rstrip('_') or '_'}",
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if operation.body is not None:
        body = types.of(operation.body, owner)
        content = {media: {"schema": body if i == 0 else {"type": "string"}} for i, media in enumerate(operation.taken)}
        told["requestBody"] = {"required": not asked, "content": content}
    return told


# --- the page -------------------------------------------------------------------------------------------------------

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre { font: 0.9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; }
details { border-top: 1px solid #8888; padding: 0.6rem 0; }
summary { cursor: pointer; }
b { display: inline-block; min-width: 3.5rem; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: 0.2rem 1rem 0.2rem 0; vertical-align: top; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page(told: dict[str, Any]) -> str:
    """The document as HTML; every word of it is escaped, as names come from the pipeline file."""
    title = escape(told["info"]["title"])
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body><main>',
        f"<h1>{title}</h1><p>{escape(told['info']['description'])}</p>",
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>',
    ]
    if "security" in told:
        operations = [operation for methods in told["paths"].values() for operation in methods.values()]
        but = ", but to those that say so" if any("security" in operation for operation in operations) else ""
        parts.append(f"<p>Each request carries <code>Authorization: Bearer TOKEN</code>{but}.</p>")
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            parts += _shown(method.upper(), path, operation)
    parts.append("<h2>Types</h2>")
    for name, schema in told["components"]["schemas"].items():
        shown = escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
        parts.append(f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>')
        parts.append(f"<pre>{shown}</pre></details>")
    return "".join([*parts, "</main></body></html>"])


def _shown(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<details><summary><b>{method}</b> <code>{escape(path)}</code> {escape(operation['summary'])}</summary>"]
    if operation.get("security") == []:
        parts.append("<p>Needs no token.</p>")
    if operation["parameters"]:
        parts.append("<table>")
        for parameter in operation["parameters"]:
            text = escape(parameter.get("description", "in the path"))
            parts.append(f"<tr><td><code>{escape(parameter['name'])}</code></td><td>{text}</td></tr>")
        parts.append("</table>")
    if body := operation.get("requestBody"):
        parts.append(f"<p>Takes {_forms(body['content'])}</p>")
    for status, response in operation["responses"].items():
        forms = _forms(response["content"])
        parts.append(f"<p>{escape(status)} {escape(response['description'])}: {forms}</p>")
    return [*parts, "</details>"]


def _forms(content: dict[str, Any]) -> str:
    """Media types, and the schema of the first."""
    types = ", ".join(f"<code>{escape(media)}</code>" for media in content)
    schema = next(iter(content.values()))["schema"]
    if name := schema.get("$ref", "").rpartition("/")[2]:
        return f'{types} <a href="#{escape(name)}">{escape(name)}</a>'
    return f"{types} <code>{escape(orjson.dumps(schema).decode())}</code>" if schema else types
