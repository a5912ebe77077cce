"""`prometheus`: numbers as samples to a Prometheus, by remote write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from pipeline.component import Batch, Outcome, SinkContext
from pipeline.delivering import BatchSettings, DeliveringSink, in_parts
from pipeline.http_peer import HttpDeliveringSettings, HttpPeer, Unanswered, check_url
from pipeline.quantity import Secret
from pipeline.remote_write import Labels, snappy, write_request
from pipeline.template import Template

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
LATE = re.compile(
    r"out of order|duplicate sample|out of bounds|too old", re.IGNORECASE
)  # what a repeated sample is told
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class PrometheusSettings(HttpDeliveringSettings, frozen=True, kw_only=True):
    url: Annotated[str, Meta(description="Where samples are written, mostly …/api/v1/write.")]
    user: Annotated[str | None, Meta(description="Who writes, where the peer asks for a name and a password.")] = None
    password: Annotated[Secret | None, Meta(description="The password.")] = None
    metric: Annotated[str, Meta(description="The name of a metric, of {stream} and {field}.")] = "{stream}_{field}"
    labels: Annotated[dict[str, str], Meta(description="Labels of every series.")] = {}
    label_fields: Annotated[tuple[str, ...], Meta(description="Fields of text that are labels, beside the key.")] = ()
    batch: Annotated[BatchSettings, Meta(description="How rows are put together.")] = BatchSettings(rows=1_000)


class Prometheus(DeliveringSink):
    """Write numbers to Prometheus, or to what takes its remote write (Mimir, VictoriaMetrics, Grafana Cloud).

        [sinks.metrics]
        type = "prometheus"
        inputs = ["ten_seconds"]
        url = "http://prometheus.example.org:9090/api/v1/write"
        labels = { site = "greenhouse" }

    Each number of a row is a sample of the series `stream_field{sensor_id="…", site="…"}`, true and false are 1 and 0; texts
    and times are none, but `label_fields` makes labels of texts. What a name may not have becomes "_". Prometheus must be
    started with --web.enable-remote-write-receiver. `user` and `password`, `token`, `oauth`, `headers`, `tls`: who writes.
    Delivery: at least once, in order also after an outage; a sample that comes twice is one. Where a batch is refused (400,
    413, 422) halves are tried until the guilty rows are alone, and these become dead letters. All else is tried again.
    Late data: Prometheus takes samples of a series in order of time only, each ms once, unless its
    storage.tsdb.out_of_order_time_window allows more. A late row becomes a dead letter ("out of order sample"); of two within
    a millisecond in one batch the later stays. Of a batch that was tried before, such an answer means that it is there.
    At the limit (`buffer.when_full`): as for `cloud`.
    """

    def __init__(self, settings: PrometheusSettings, context: SinkContext) -> None:
        super().__init__(settings, context)
        assert self.buffer
        self.buffer.in_order = True
        self.settings = settings
        self.shown_url = check_url(settings.url, context, such_as="http://127.0.0.1:9090/api/v1/write")
        self.peer = HttpPeer(settings, context, user=settings.user, password=settings.password)
        self.metric = Template(settings.metric, {"stream": "string", "field": "string"})
        for problem in self.metric.problems:
            context.problem("metric", problem)
        for name in settings.labels:
            if not _LABEL.fullmatch(name) or name.startswith("__"):
                context.problem(f"labels.{name}", "cannot be a label: letters, digits and _, not beginning with __")
        fields = {name: field.kind for schema in context.inputs.values() for name, field in schema.fields.items()}
        for name in settings.label_fields:
            if fields.get(name) != "string":
                context.problem("label_fields", f'"{name}" is not a field of text of any input')
        self._names: dict[tuple[str, str], str] = {}

    async def deliver(self, batch: Batch) -> Outcome:
        told = self.told(batch)
        times = (np.concatenate([frame.time for _, frame in batch.parts]) // 1_000_000).tolist()
        again = batch.attempt > 1 or batch.resumed

        async def offer(rows: Sequence[int]) -> Outcome:
            series = self._series([(times[i], told[i]) for i in rows])
            if not series:
                return Outcome(delivered=True)  # no number in them
            body = snappy(write_request({labels: sorted(samples.items()) for labels, samples in series.items()}))
            try:
                answer = await self.peer.ask("POST", self.settings.url, body, HEADERS, self.shown_url, batch.key)
            except Unanswered as error:
                return error.outcome
            if again and len(rows) == 1 and answer.status == 400 and LATE.search(answer.text):
                return Outcome(delivered=True)
            return answer.verdict

        return await in_parts(len(told), offer)

    def _series(self, rows: Sequence[tuple[int, dict[str, Any]]]) -> dict[Labels, dict[int, float]]:
        """By labels: ms -> value."""
        found: dict[Labels, dict[int, float]] = {}
        for at, row in rows:
            stream = row["stream"]
            schema = self.context.inputs.get(stream)
            key = schema.key if schema else "key"
            aside = {"stream", "time", "recovered", key, *self.settings.label_fields}
            labels = dict(self.settings.labels)
            for name in (key, *self.settings.label_fields):
                if name is not None and isinstance(text := row.get(name), str):
                    labels[_plain(name)] = text
            for name, value in row.items():
                if name not in aside and isinstance(value, int | float):
                    named = {**labels, "__name__": self._name(stream, name)}
                    series = tuple(sorted((label, text) for label, text in named.items() if text))
                    found.setdefault(series, {})[at] = float(value)
        return found

    def _name(self, stream: str, field: str) -> str:
        if (stream, field) not in self._names:
            filled = self.metric.fill({"stream": stream, "field": field})
            self._names[stream, field] = ":".join(map(_plain, filled.split(":")))
        return self._names[stream, field]

    async def close(self) -> None:
        await self.peer.close()


def _plain(name: str) -> str:
    """A name that a label may have."""
    plain = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{plain}" if plain[:1].isdigit() or plain.startswith("__") else plain
