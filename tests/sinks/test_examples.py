"""The example in the docstring of each sink is a good pipeline: who copies it gets no problems."""

from __future__ import annotations

import importlib.util
import inspect
import textwrap
from pathlib import Path

import pytest

from pipeline import registry
from pipeline.run import check

AROUND = """
[pipeline]
name = "example"
[server]
listen = "127.0.0.1:0"
[sources.readings]
type = "http"
key = "sensor_id"
fields = { temperature = "float" }
[operators.valid]
type = "filter"
input = "readings"
where = "temperature > 0"
[operators.ten_seconds]
type = "window"
input = "valid"
size = "10 s"
aggregate = { average = "mean(temperature)" }
[operators.overheat]
type = "alert"
input = "valid"
when = "temperature > 30"
message = "{sensor_id} is hot"
"""
MEANT = {
    "PGPASSWORD": "p",
    "MAIL_USER": "u",
    "MAIL_PASSWORD": "p",
    "BOT_TOKEN": "123456789:abcdefg_hijk",
    "CHAT": "12345",
}
NEEDS = {"notify": "apprise", "postgres": "asyncpg"}


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("type_", ["cloud", "exec", "http", "influx", "notify", "postgres", "prometheus"])
def test_it_is_a_good_one(type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if type_ in NEEDS and importlib.util.find_spec(NEEDS[type_]) is None:
        pytest.skip(f"{NEEDS[type_]} is not installed")
    for name, value in MEANT.items():
        monkeypatch.setenv(name, value)
    sink, _ = registry.find("sink", type_)
    shown = [line for line in (inspect.getdoc(sink) or "").splitlines() if line.startswith("    ")]
    assert any("[sinks." in line for line in shown)
    file = tmp_path / "pipeline.toml"
    file.write_text(AROUND + textwrap.dedent("\n".join(shown)))
    check(file)
