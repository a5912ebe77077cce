"""`query_server`: a local history, and HTTP answers from it."""

from __future__ import annotations

from pipeline.component import Server, Settings, Sink, SinkContext, StepWrites
from pipeline.frame import Frame
from pipeline.quantity import Duration, Size


class QueryServerSettings(Settings, frozen=True):
    retention: Duration | None = None
    max_size: Size | None = None


class QueryServer(Sink):
    """Keep the rows of the inputs, and answer questions about them.

        [sinks.local]
        type = "query_server"
        inputs = ["valid", "ten_seconds", "overheat"]
        retention = "30 d"

        curl 'http://127.0.0.1:8080/api/streams/valid/rows?key=s1&from=-1h'

    Answers: /api/streams, /api/streams/NAME/latest, /api/streams/NAME/rows, /api/alerts, /api/delivery, /api/dead,
    /api/graph, /health, /ready, /metrics; and /data and /status, where no http source has these paths.
    `retention` and `max_size` (of each stream) drop the oldest rows; without them the history grows until the disk is full.
    """

    needs_server = True

    def __init__(self, settings: QueryServerSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.retention = settings.retention
        self.max_size = settings.max_size

    def write(self, stream: str, frame: Frame, writes: StepWrites) -> None:
        writes.record(stream, frame)

    def mount(self, server: Server) -> None:
        from sinks.query_server.routes import Routes

        assert self.context.services is not None
        Routes(self.context.services, self.context.inputs, self.context.keys).mount(server)
