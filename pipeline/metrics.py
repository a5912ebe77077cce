"""What `/metrics` tells: counters and gauges of a running pipeline, for Prometheus. Of readings it says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.engine import Engine

Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]

# Of each sink that delivers: what its status calls it, and what it is.
_DELIVERY = (
    ("waiting", "headwater_delivery_waiting_rows", "gauge", "Rows that wait to be delivered, by sink."),
    ("bytes", "headwater_delivery_waiting_bytes", "gauge", "Bytes of the rows that wait, by sink."),
    (
        "attempts",
        "headwater_delivery_failing_attempts",
        "gauge",
        "Tries in a row that have failed, by sink; 0: it delivers.",
    ),
    ("sent", "headwater_delivery_sent_total", "counter", "Rows delivered, by sink."),
    ("failed", "headwater_delivery_refused_total", "counter", "Rows that the other end has refused, by sink."),
    ("dropped", "headwater_delivery_dropped_total", "counter", "Rows dropped because the buffer was full, by sink."),
    ("thinned", "headwater_delivery_thinned_total", "counter", "Rows thinned because the buffer was full, by sink."),
)


def of_delivery(status: Sequence[dict[str, Any]]) -> list[Metric]:
    """`status`: of each sink that delivers, as /api/delivery tells it."""
    return [
        (name, kind, text, [({"sink": sink["sink"]}, sink[member]) for sink in status])
        for member, name, kind, text in _DELIVERY
    ]


def of_letters(held: int) -> Metric:
    return "headwater_dead_letters", "gauge", "Dead letters that are kept.", [({}, held)]


def of_engine(engine: Engine) -> list[Metric]:
    intakes = engine.intakes.values()
    edges = engine.graph.edges.items()
    return [
        (
            "headwater_readings_total",
            "counter",
            "Readings taken, by source.",
            [({"source": i.name}, i.taken) for i in intakes],
        ),
        (
            "headwater_refused_total",
            "counter",
            "Readings refused, by source.",
            [({"source": i.name}, i.refused) for i in intakes],
        ),
        (
            "headwater_pushed_back_total",
            "counter",
            "Payloads turned away because the inbox was full, by source.",
            [({"source": i.name}, i.inbox.refused) for i in intakes],
        ),
        (
            "headwater_inbox_bytes",
            "gauge",
            "Bytes that wait, by source.",
            [({"source": i.name}, i.inbox.fill()) for i in intakes],
        ),
        (
            "headwater_rows_in_total",
            "counter",
            "Rows that entered an operator.",
            [({"node": n}, e.rows_in) for n, e in edges],
        ),
        (
            "headwater_rows_out_total",
            "counter",
            "Rows that left an operator.",
            [({"node": n}, e.rows_out) for n, e in edges],
        ),
        ("headwater_keys", "gauge", "Distinct keys tracked.", [({}, len(engine.graph.keys))]),
        ("headwater_steps_total", "counter", "Steps taken.", [({}, engine.number)]),
        ("headwater_commits_total", "counter", "Transactions committed.", [({}, engine.store.commits)]),
        (
            "headwater_commit_seconds_total",
            "counter",
            "Time spent in commits.",
            [({}, engine.store.commit_seconds)],
        ),
        (
            "headwater_flash_written_bytes_total",
            "counter",
            "Bytes written to the state folder's database since it was made.",
            [({}, engine.store.log.written)],
        ),
        (
            "headwater_flash_endurance_bytes",
            "gauge",
            "Bytes that the flash may be written before it is used up, by [pipeline] endurance.",
            [({}, int(engine.settings.endurance))],
        ),
        ("headwater_in_flight", "gauge", "Steps not yet durable.", [({}, engine.in_flight)]),
    ]
