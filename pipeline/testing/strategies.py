"""Streams made by Hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.frame import SECOND, Field, Schema
from pipeline.testing.readings import READINGS, Mark, Reading, Stream, end, file, forget, tick

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypothesis.strategies import SearchStrategy


def streams(
    schema: Schema = READINGS,
    *,
    keys: str = "abc",
    values: SearchStrategy[Any] | None = None,
    late: int = 3,
    ticks: bool = True,
    max_size: int = 20,
    sides: Mapping[str, Schema] | None = None,
    files: Sequence[str] = (),
    forgets: bool = False,
) -> SearchStrategy[Stream]:
    """Readings of several keys. Time moves on by whole seconds, often not at all; a reading may be dated up to `late`
    seconds back, an optional value may be missing, and (with `ticks`) time may run ahead between them and the end come.

    `values`: what the fields are drawn from; else small numbers, so that equal ones and small differences are frequent.
    `sides`: further streams by which readings come, with their schemas; `files`: contents that a file may come to have.
    `forgets`: keys may be forgotten among them.
    """
    from hypothesis import strategies as st

    small = {
        "float": st.integers(-8, 8).map(lambda n: n / 2),
        "int": st.integers(-4, 4),
        "bool": st.booleans(),
        "string": st.sampled_from(["", "open", "shut"]),
        "time": st.integers(0, 10).map(lambda s: s * SECOND),
    }

    def of_field(field: Field) -> SearchStrategy[Any]:
        of = small[field.kind] if values is None else values
        return st.one_of(of, st.none()) if field.optional else of

    def by_input(name: str, of: Schema) -> SearchStrategy[Reading]:
        own = {"input": st.just(name)} if name else {}
        fields = {field_name: of_field(field) for field_name, field in of.fields.items()}
        return st.fixed_dictionaries({**own, "key": st.sampled_from(keys), "back": st.integers(0, late), **fields})

    reading = st.one_of([by_input(name, of) for name, of in {"": schema, **(sides or {})}.items()])
    changes = [st.sampled_from([*files]).map(file)] if files else []
    changes += [st.sampled_from(keys).map(forget)] if forgets else []
    item = st.one_of(reading, reading, reading, *([st.none()] if ticks else []), *changes)
    steps = st.lists(st.tuples(st.sampled_from([0, 0, 1, 1, 2, 5]), item), max_size=max_size)

    def stream(made: tuple[list[tuple[int, Reading | Mark | None]], bool]) -> Stream:
        now, found = late, Stream()
        for pause, one in made[0]:
            now += pause
            if one is None:
                found.append(tick(now))
            elif isinstance(one, Mark):
                found.append(one)
            else:
                found.append({**{n: v for n, v in one.items() if n != "back"}, "time": now - one["back"]})
        return [*found, end()] if made[1] else found

    return st.tuples(steps, st.booleans() if ticks else st.just(False)).map(stream)
