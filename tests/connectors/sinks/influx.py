"""`influx`: a real InfluxDB 1; a field of another type stands for what it refuses."""

from __future__ import annotations

from tests.connectors.rig import ServerRig
from tests.peers import influxd
from tests.peers.influxd import DATABASE, PASSWORD, USER, Influxd


class InfluxRig(ServerRig):
    peer = "InfluxDB"
    promise = "exactly once"
    password = PASSWORD
    limit = "buffer, then 429"
    without = {
        "refusal": "InfluxDB refuses a field by its type, not by its value; tests/sinks/test_influx.py does that"
    }

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.server = Influxd(self.folder)

    def version(self) -> str | None:
        return influxd.version()

    def settings_with(self, port: int | None, password: str) -> str:
        where = f'url = "http://127.0.0.1:{port}"\ndatabase = "{DATABASE}"\nuser = "{USER}"'
        return f'type = "influx"\n{where}\npassword = "{password}"\ntimeout = "1 s"\nspread = true'

    async def received(self) -> list[int]:
        return [row[1] for row in await self.server.ask("SELECT n FROM posted")]
