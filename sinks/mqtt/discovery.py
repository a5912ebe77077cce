"""Home Assistant's MQTT discovery: a retained message for each entity says what it is and where its state comes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import orjson
from msgspec import Meta

from pipeline.broker import WillSettings
from pipeline.component import Settings, SinkContext
from pipeline.frame import Field, Schema
from pipeline.mqtt.packets import Publish
from pipeline.problem import did_you_mean

_OTHER = re.compile(r"[^a-zA-Z0-9_-]")


class HomeAssistantSettings(Settings, frozen=True):
    prefix: Annotated[str, Meta(description="Where Home Assistant looks for announcements.")] = "homeassistant"
    units: Annotated[dict[str, str], Meta(description='Unit of a field: { temperature = "°C" }.')] = {}
    classes: Annotated[
        dict[str, str], Meta(description='Device class of a field: { temperature = "temperature" }.')
    ] = {}


class Discovery:
    """Which entities have been announced over this connection, and the announcements of the others."""

    def __init__(
        self,
        settings: HomeAssistantSettings,
        context: SinkContext,
        will: WillSettings,
        topic_of: Callable[[str, str], str],
    ) -> None:
        self.settings = settings
        self.context = context
        self.will = will
        self.topic_of = topic_of
        self._announced: set[tuple[str, str]] = set()  # stream and key: as many as there are keys at most
        fields = {name for schema in context.inputs.values() for name in schema.fields}
        for setting in ("units", "classes"):
            for name in getattr(settings, setting).keys() - fields:
                where = f"home_assistant.{setting}.{name}"
                context.problem(where, f"is not a field of any input{did_you_mean(name, fields)}")

    def forget(self) -> None:
        self._announced.clear()

    def of(self, told: Sequence[dict[str, Any]]) -> list[Publish]:
        """The announcements for rows of keys that are new."""
        found: list[Publish] = []
        for row in told:
            schema = self.context.inputs.get(row["stream"])
            if schema is None:
                continue
            which = (row["stream"], str(row.get(schema.key or "key", "")))
            if which not in self._announced:
                self._announced.add(which)
                found += self._entities(*which, schema)
        return found

    def _entities(self, stream: str, key: str, schema: Schema) -> Iterator[Publish]:
        topic = self.topic_of(stream, key)
        if set(topic) & set("+#\0"):
            return  # its rows are refused
        of = key or self.context.pipeline
        device = {"identifiers": [f"headwater_{self.context.pipeline}_{of}"], "name": of, "manufacturer": "Headwater"}
        common = {
            "state_topic": topic,
            "availability_topic": self.will.topic,
            "payload_available": self.will.online,
            "payload_not_available": self.will.offline,
            "device": device,
        }
        alerts = schema.role == "alerts"
        entities = [("state", Field("string"))] if alerts else schema.fields.items()
        for name, field in entities:
            kind, own = self._alert() if alerts else self._field(name, field)
            id_ = "_".join(_slug(part) for part in (self.context.pipeline, of, stream, name))
            shown = stream if alerts or len(schema.fields) == 1 else f"{stream} {name}"
            config = {"name": shown, "unique_id": f"headwater_{id_}", "object_id": id_, **own, **common}
            yield Publish(f"{self.settings.prefix}/{kind}/{id_}/config", orjson.dumps(config), 1, True)

    def _alert(self) -> tuple[str, dict[str, Any]]:
        value = "{{ 'ON' if value_json.state == 'firing' else 'OFF' }}"
        return "binary_sensor", {"device_class": "problem", "value_template": value}

    def _field(self, name: str, field: Field) -> tuple[str, dict[str, Any]]:
        value = f"value_json[{orjson.dumps(name).decode()}]"
        own: dict[str, Any] = {}
        if name in self.settings.classes:
            own["device_class"] = self.settings.classes[name]
        if field.kind == "bool":
            # What is missing changes nothing.
            chosen = f"'ON' if {value} else 'OFF'"
            return "binary_sensor", {
                **own,
                "value_template": f"{{{{ ({chosen}) if {value} is defined else this.state }}}}",
            }
        own["value_template"] = f"{{{{ {value} | default(this.state) }}}}"
        if field.kind in ("float", "int"):
            own["state_class"] = "measurement"
            if name in self.settings.units:
                own["unit_of_measurement"] = self.settings.units[name]
        elif field.kind == "time":
            own["device_class"] = "timestamp"
        return "sensor", own


def _slug(text: str) -> str:
    """Letters, digits, _ and - alone, as Home Assistant wants it; two different texts stay different."""
    made = _OTHER.sub("_", text)
    return made if made == text else f"{made}_{zlib.crc32(text.encode()):08x}"
