"""Components as somebody else would bring them, by entry points."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta, field

from pipeline.component import Operator, OperatorContext, ReadingSettings, Settings, Sink, Source, SourceContext, State
from pipeline.frame import Column, Field, Frame, Schema
from pipeline.quantity import Duration, Secret, Size, duration


class MadeSettings(ReadingSettings, kw_only=True, frozen=True):
    url: str
    qos: Annotated[int, Meta(ge=0, le=2)] = 0


class Made(Source):
    def __init__(self, settings: MadeSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        if not settings.url:
            raise ValueError("there is no host in the url")
        self.schema = Schema(settings.key, {name: Field("float") for name in settings.fields})


class SieveSettings(Settings, kw_only=True, frozen=True):
    where: str
    wait: Duration = duration("5 s")


class Sieve(Operator):
    def __init__(self, settings: SieveSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        if settings.where.split(" ")[0] not in context.schema.names():
            context.problem("where", f'"{settings.where}" names no field')


class Round(Settings, kw_only=True, frozen=True, tag_field="shape", tag="round"):
    radius: float


class Square(Settings, kw_only=True, frozen=True, tag_field="shape", tag="square"):
    side: float = 1.0


class Shapes(Operator):
    def __init__(self, settings: Round | Square, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.settings = settings


class ListenSettings(Settings, frozen=True):
    to: str
    unless: tuple[str, ...] = ()


class Listen(Operator):
    """How many rows had come by the streams beside the input when each of its own came. A negative value is an error."""

    sides: ClassVar[tuple[str, ...]] = ("to", "unless")
    mended: ClassVar[bool] = False

    def __init__(self, settings: ListenSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema(context.schema.key, {**context.fields, "heard": Field("int")})
        self.heard = 0

    def on_frame(self, frame: Frame) -> Frame:
        for rows in (frame, *frame.sides.values()):
            if not self.mended and (rows["value"].values < 0).any():
                raise ValueError("negative")
        came = np.sort(np.concatenate([[], *(side.seq for side in frame.sides.values())]))
        heard = self.heard + np.searchsorted(came, frame.seq, "right")
        self.heard += len(came)
        return frame.with_columns({"heard": Column(heard)})

    def snapshot(self) -> State:
        return {"heard": self.heard}

    def restore(self, state: State) -> None:
        self.heard = state["heard"]


class Batch(Settings, kw_only=True, frozen=True):
    rows: Annotated[int, Meta(ge=1)] = 500
    wait: Duration = duration("5 s")


class Buffer(Settings, kw_only=True, frozen=True):
    size: Size = Size(100_000_000)
    when_full: Literal["thin", "drop_oldest", "block"] = "drop_oldest"


class UploadSettings(Settings, kw_only=True, frozen=True):
    url: str
    token: Secret | None = None
    retry: Literal["never"] | Duration = duration("1 s")
    batch: Batch = Batch()
    buffer: Buffer = Buffer()
    headers: dict[str, str] = field(default_factory=dict)
    codes: tuple[int, ...] = ()
    by_level: dict[str, Batch] | None = None
    anything: Any = None


class Upload(Sink):
    def __init__(self, settings: UploadSettings, context: Any) -> None:
        super().__init__(settings, context)
