"""The test kit for sources, codecs and sinks: good ones get through, and each way to break a promise is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from pipeline.component import (
    Batch,
    Buffer,
    Context,
    Decoded,
    Inbox,
    Outcome,
    Payload,
    ReadingSettings,
    Refused,
    Settings,
    Sink,
    SinkContext,
    Source,
    SourceContext,
)
from pipeline.frame import Field, Schema, column
from pipeline.testing.connectors import (
    Gathering,
    Outbox,
    batch,
    decoded,
    gathered,
    make_codec,
    make_sink,
    make_source,
    problems_of,
)
from sinks.file import File

# --- sources ---


class CountSettings(Settings, frozen=True, kw_only=True):
    most: int = 3


class Count(Source):
    """One, two, three."""

    def __init__(self, settings: CountSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self.schema = Schema("name", {"n": Field("int")})
        self.most = settings.most
        if settings.most < 0:
            context.problem("most", "is negative")
        if settings.most > 9:
            raise ValueError("too many")

    async def run(self, inbox: Inbox, position: Any) -> None:
        for n in range(position or 0, self.most):
            await inbox.put(Payload(n, 1, position=n + 1))
        inbox.end()

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        n = len(payloads)
        return Decoded(["x"] * n, None, {"n": column("int", [p.data for p in payloads])}, [1] * n, [])


class Numbering(Count):
    """What a payload says depends on those beside it."""

    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        n = len(payloads)
        return Decoded(["x"] * n, None, {"n": column("int", range(n))}, [1] * n, [])


class Miscounting(Count):
    def decode(self, payloads: Sequence[Payload]) -> Decoded:
        return super().decode(payloads)._replace(counts=[2] * len(payloads))


class Failing(Count):
    async def run(self, inbox: Inbox, position: Any) -> None:
        raise OSError("no such port")


async def test_a_source() -> None:
    """So many payloads, or fewer if it ends; from a position on."""
    made = make_source(Count, {})
    assert await gathered(made, 2) == [{"name": "x", "n": 0}, {"name": "x", "n": 1}]
    assert [row["n"] for row in await gathered(made, 5)] == [0, 1, 2]
    assert [row["n"] for row in await gathered(made, 5, position=2)] == [2]


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Numbering, "decoded one by one the payloads say something else"),
        (Miscounting, "counts say 6 readings"),
        (Failing, "the source ended: OSError('no such port')"),
    ],
)
async def test_a_source_that_is_wrong(cls: type[Source], says: str) -> None:
    with pytest.raises(AssertionError) as raised:
        await gathered(make_source(cls, {}), 3)
    assert says in str(raised.value)


async def test_a_full_inbox_holds_a_source_up() -> None:
    inbox = Gathering(1)
    running = asyncio.create_task(make_source(Count, {}).run(inbox, None))
    await inbox.full.wait()
    await asyncio.sleep(0)
    assert not running.done()
    assert not inbox.offer(Payload(0, 1))
    running.cancel()


def test_wrong_settings() -> None:
    """Those of the wrong type, those that it finds itself, and what it raises."""
    assert problems_of(Count, {}) == []
    assert problems_of(Count, {"most": "3"}) == [("most", "expected a whole number, got text")]
    assert [setting for setting, _ in problems_of(Count, {"msot": 3})] == ["msot"]
    assert problems_of(Count, {"most": -1}) == [("most", "is negative")]
    assert problems_of(Count, {"most": 10}) == [("", "too many")]
    for wrong in ({"most": "3"}, {"most": -1}):
        with pytest.raises(AssertionError, match="the settings are wrong"):
            make_source(Count, wrong)


# --- codecs ---


class Words:
    """A word is a reading; one with a capital is none."""

    media_types: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: ReadingSettings, options: Mapping[str, Any], context: Context) -> None:
        if options:
            context.problem("format", "there are no options")

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        words, counts, refused = list[str](), [], []
        for i, payload in enumerate(payloads):
            said = payload.decode().split()
            refused += [Refused(i, n, "a capital", word) for n, word in enumerate(said) if not word.islower()]
            words += (good := [word for word in said if word.islower()])
            counts.append(len(good))
        return Decoded([], None, {"word": column("string", words)}, counts, refused)

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return " ".join(row["word"] for row in rows).encode()

    def header(self, names: Sequence[str]) -> bytes:
        return b""


class Dropping(Words):
    """One bad reading costs all that come with it."""

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        if any(payload != payload.lower() for payload in payloads):
            none = [Refused(i, 0, "a capital", "") for i in range(len(payloads))]
            return Decoded([], None, {"word": column("string", [])}, [0] * len(payloads), none)
        return super().decode(payloads)


FIELDS = {"word": "string"}


def test_a_codec() -> None:
    rows, refused = decoded(make_codec(Words, fields=FIELDS), [b"a B c", b"", b"D", b"e"])
    assert [row["word"] for row in rows] == ["a", "c", "e"]
    assert refused == [(0, 1, "a capital"), (2, 0, "a capital")]
    with pytest.raises(AssertionError, match="there are no options"):
        make_codec(Words, fields=FIELDS, strict=True)


def test_a_codec_that_is_wrong() -> None:
    with pytest.raises(AssertionError, match="decoded one by one"):
        decoded(make_codec(Dropping, fields=FIELDS), [b"a", b"B"])


# --- sinks ---


class Telling(Sink):
    """Notes what it is handed; what it answers is asked of a function."""

    answer: Callable[[Batch], Outcome] = staticmethod(lambda batch: Outcome(delivered=True))

    def __init__(self, settings: Settings, context: SinkContext) -> None:
        super().__init__(settings, context)
        self.buffer = Buffer(rows=2, wait=0)
        self.handed: list[Batch] = []

    async def deliver(self, batch: Batch) -> Outcome:
        self.handed.append(batch)
        return self.answer(batch)


async def test_a_sink_that_delivers() -> None:
    """In batches, each under a key of its own; what is refused is a dead letter."""
    made = make_sink(Telling, {})
    async with Outbox(made) as outbox:
        await outbox.put("readings", "a1 b2 a3")
        assert (await outbox.until(sent=3, waiting=0))["failed"] == 0
        assert [len(handed) for handed in made.handed] == [2, 1]
        assert len({handed.key for handed in made.handed}) == 2
        made.answer = lambda batch: Outcome(refused=True, reason="no")
        await outbox.put("readings", [{"key": "c", "time": 9, "value": 4}])
        await outbox.until(failed=1)
        ((reason, row),) = await outbox.letters()
    assert (reason, row["value"]) == ("no", 4)


async def test_the_same_batch_on_every_try() -> None:
    made = make_sink(Telling, {})
    made.answer = lambda batch: Outcome(delivered=len(made.handed) > 1, reason="away")
    async with Outbox(made) as outbox:
        await outbox.put("readings", "a1")
        await outbox.until(sent=1)
    first, second = made.handed
    assert first.key == second.key
    assert second.attempt == 2


def test_a_batch_by_hand() -> None:
    made = batch(make_sink(Telling, {}), "a1 b-", key="mine")
    ((stream, frame),) = made.parts
    assert (made.key, stream, frame["value"].tolist()) == ("mine", "readings", [1, None])


def test_a_sink_that_does_not_deliver_is_made_as_well() -> None:
    assert isinstance(make_sink(File, {"path": "x"}), File)
    assert [setting for setting, _ in problems_of(File, {"path": "x", "format": "jsn"})] == ["format"]
