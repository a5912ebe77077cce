"""What a running pipeline says of its HTTP interface: valid by the public rules, and true."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from pipeline import api
from pipeline.openapi import document, mount, page
from pipeline.server import HttpServer
from sinks.query_server import page as dashboard
from tests.sinks.test_dashboard import Locked
from tests.test_http import Running


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    await made.start()
    await made.post("/data", [{"id": "a", "value": 80}, {"id": "b", "value": 90}, {"id": "b", "value": "x"}])
    await made.post("/dated", {"id": "a", "ts": 1, "a": 1})
    yield made
    await made.stop()


async def told(running: Running) -> dict[str, Any]:
    status, found = await running.get("/openapi.json")
    assert status == 200
    return found


async def test_the_document_is_valid(running: Running) -> None:
    OpenAPIV31SpecValidator(await told(running)).validate()


async def test_each_route_is_in_it(running: Running) -> None:
    """Whatever a source or sink mounts, with something said of it; and nothing else."""
    paths = (await told(running))["paths"]
    shown = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert shown == set(running.pipeline.server.routes)
    assert {("POST", "/dated"), ("GET", "/dated"), ("GET", "/api/streams/{name}/rows")} <= shown
    assert all(operation["summary"] for methods in paths.values() for operation in methods.values())


async def test_what_an_http_source_takes(running: Running) -> None:
    post = (await told(running))["paths"]["/dated"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    takes = Draft202012Validator(schema).is_valid
    assert takes({"id": "a", "ts": 1, "a": 1.5, "b": None})
    assert takes([{"id": "a", "ts": 1, "a": 1, "more": "x"}])
    assert not takes({"id": "a", "ts": 1})
    assert not takes({"id": "a", "ts": 1, "a": "x"})
    assert [p["name"] for p in post["parameters"]] == ["id", "ts", "a", "b"]


ANSWERS = {
    "/api/streams": api.Streams,
    "/api/streams/readings/latest": api.Latest,
    "/api/streams/high/rows": api.Rows,
    "/api/alerts": api.Alerts,
    "/api/dead": api.Dead,
    "/api/delivery": api.Delivery,
    "/api/graph": api.Nodes,
    "/health": api.Health,
    "/ready": api.Ready,
}


@pytest.mark.parametrize("path", ANSWERS)
async def test_answers_are_what_it_says(path: str, running: Running) -> None:
    """Of each answer: no member that the type does not have, and none missing."""
    status, found = await running.get(path)
    assert status == 200
    assert msgspec.to_builtins(msgspec.convert(found, ANSWERS[path])) == found
    described = (await told(running))["paths"][re.sub(r"/streams/\w+/", "/streams/{name}/", path)]["get"]
    name = described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert name == ANSWERS[path].__name__


async def test_an_alert_and_what_people_do_are_what_it_says(running: Running) -> None:
    (alert, _) = (await running.get("/api/alerts"))[1]["alerts"]
    said: dict[str, Any] = {"alert": "high", "for": "1 h", "by": "ann"}
    for kind, (status, found) in (
        (api.Alert, await running.get(f"/api/alerts/{alert['id']}")),
        (api.Alert, await running.post(f"/api/alerts/{alert['id']}/acknowledge", {"by": "ann"})),
        (api.Why, await running.get(f"/api/alerts/{alert['id']}/why")),
        (api.WhyNot, await running.get("/api/alerts/why-not?alert=high&key=a")),
        (api.Silences, await running.post("/api/alerts/silence", said)),
        (api.Alerts, await running.get("/api/alerts")),
        (api.Answer, await running.post("/api/query", {"sql": "SELECT * FROM high"})),
    ):
        assert status == 200
        assert msgspec.to_builtins(msgspec.convert(found, kind)) == found


async def test_sql_is_asked_of_what_is_durable(running: Running) -> None:
    """By the readers' threads of a real engine: of the streams that the query server keeps, and of nothing else."""
    asked = "SELECT id, value FROM readings WHERE id IN ('a', 'b') AND value > 50 ORDER BY value"
    status, found = await running.post("/api/query", {"sql": asked})
    assert (status, found["rows"]) == (200, [{"id": "a", "value": 80.0}, {"id": "b", "value": 90.0}])
    status, found = await running.post("/api/query", {"sql": "SELECT count(*) FROM keys"})
    assert (status, found["detail"]) == (400, "sql: no such table: keys")


async def test_problems_are_what_it_says(running: Running) -> None:
    for status, found in (await running.get("/api/alerts?state=x"), await running.post("/data", [{}, 5])):
        assert status == 400
        assert msgspec.to_builtins(msgspec.convert(found, api.Problem)) == found


async def test_each_parameter_is_one_that_is_known(running: Running) -> None:
    """A question that names one is never told that there is no such parameter."""
    for path, methods in (await told(running))["paths"].items():
        if path == "/api/live":
            continue  # its answer has no end
        for parameter in methods.get("get", {"parameters": []})["parameters"]:
            if parameter["in"] == "query":
                _, found = await running.get(f"{path.replace('{name}', 'dated')}?{parameter['name']}=1")
                assert "there is no parameter" not in str(found), path


async def test_the_parameters_of_live_answers(running: Running) -> None:
    """They are those that its handler knows; a WebSocket has the same."""
    paths = (await told(running))["paths"]
    for path in ("/api/live", "/api/socket"):
        names = [parameter["name"] for parameter in paths[path]["get"]["parameters"]]
        assert names == ["streams", "key", "where", "last_event_id"]
    url = running.pipeline.server.url + "/api/live?streams=readings&key=a&where=value>1&last_event_id=0"
    async with running.http.get(url) as answer:
        assert answer.status == 200
        assert answer.content_type in paths["/api/live"]["get"]["responses"]["200"]["content"]


async def test_a_token_is_told_of() -> None:
    assert "security" not in document({}, "p")
    guarded = document({}, "p", guarded=True)
    assert guarded["components"]["securitySchemes"][next(iter(guarded["security"][0]))]["scheme"] == "bearer"


async def test_what_needs_no_token_is_told_so() -> None:
    """The dashboard's own files: whoever asks with the described token, or without where that is said, is let in."""
    server = HttpServer(Locked())
    dashboard.mount(server)
    mount(server, "p")
    await server.start()
    async with aiohttp.ClientSession(server.url) as http:
        found = document(server.routes, "p", guarded=server.guarded, public=server.public)
        OpenAPIV31SpecValidator(found).validate()
        open_ = {path for path, methods in found["paths"].items() if methods["get"].get("security") == []}
        assert {"/", "/dashboard/uplot.js"} <= open_
        assert "/docs" in found["paths"].keys() - open_
        for path in found["paths"]:
            async with http.get(path) as answer:
                assert (answer.status == 200) == (path in open_), path
        shown = page(found)
        assert shown.count("Needs no token.") == len(open_)
        assert "but to those that say so" in shown
        assert "Needs no token." not in page(document(server.routes, "p"))
    await server.close()


async def test_what_has_no_description_is_told_by_its_docstring() -> None:
    async def handler(_: Any) -> Any:
        """Say it.

        At length.
        """

    found = document({("GET", "/x/{a:[a-z]+}"): handler}, "p")
    OpenAPIV31SpecValidator(found).validate()
    assert found["paths"]["/x/{a}"]["get"]["summary"] == "Say it."


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name == "id":
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.links.append(value or "")


async def test_the_page_needs_nothing_from_elsewhere(running: Running) -> None:
    """No script, no file of another site; each type that is named is there. All paths are shown."""
    async with running.http.get(running.pipeline.server.url + "/docs") as answer:
        text = await answer.text()
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    seen = Seen()
    seen.feed(text)
    assert "script" not in seen.tags
    assert {link for link in seen.links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in seen.links if link.startswith("#")} <= seen.ids
    assert all(path in text for path in (await told(running))["paths"])


async def test_names_cannot_break_out_of_the_page() -> None:
    async def handler(_: Any) -> Any:
        """<script>alert(1)</script>"""

    found = page(document({("GET", "/<b>"): handler}, "<i>"))
    assert "<script>" not in found
    assert "<i>" not in found
    assert "/<b>" not in found


async def test_the_policy_allows_the_style_of_the_page(running: Running) -> None:
    """The hash is that of what stands between the tags."""
    import base64
    import hashlib

    async with running.http.get(running.pipeline.server.url + "/docs") as answer:
        style = re.search(r"<style>(.*?)</style>", await answer.text(), re.DOTALL)
        assert style is not None
        made = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
        assert f"'sha256-{made}'" in answer.headers["Content-Security-Policy"]


async def test_it_is_json_like_any_other(running: Running) -> None:
    async with running.http.get(running.pipeline.server.url + "/openapi.json") as answer:
        assert answer.content_type == "application/json"
        assert json.loads(await answer.text())["openapi"] == "3.1.0"
