"""`prometheus`: a real Prometheus, written to by remote write. What it has it tells sample by sample."""

from __future__ import annotations

from tests.connectors.rig import ServerRig
from tests.peers import prometheus
from tests.peers.prometheus import PASSWORD, USER, Prometheus


class PrometheusRig(ServerRig):
    peer = "Prometheus"
    promise = "exactly once"
    password = PASSWORD
    limit = "buffer, then 429"
    without = {"refusal": "Prometheus refuses a sample by its time; tests/sinks/test_prometheus.py does that"}

    def __init__(self, *where: object) -> None:
        super().__init__(*where)  # type: ignore[arg-type]
        self.server = Prometheus(self.folder)

    def version(self) -> str | None:
        return prometheus.version()

    def settings_with(self, port: int | None, password: str) -> str:
        url = f"http://127.0.0.1:{port}/api/v1/write"
        return f'type = "prometheus"\nurl = "{url}"\nuser = "{USER}"\npassword = "{password}"\ntimeout = "1 s"'

    async def received(self) -> list[int]:
        return [int(float(value)) for series in (await self.server.samples("posted_n")).values() for _, value in series]
