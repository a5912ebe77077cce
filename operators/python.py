"""`python`: a function or class of one's own, as RxPY operators over Frames or over single readings."""

from __future__ import annotations

import copy
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from pipeline.component import Memory, Operator, OperatorContext, Settings, State
from pipeline.frame import (
    DTYPES,
    Array,
    Column,
    Field,
    Frame,
    Ints,
    Schema,
    column,
    concatenate,
    empty,
    in_order,
)
from pipeline.frame import rows as rows_of
from pipeline.problem import did_you_mean
from pipeline.reading import parse_fields

log = logging.getLogger("headwater")


class PythonSettings(Settings, frozen=True):
    function: Annotated[
        str, Meta(description='"FILE.py:NAME", the file beside the pipeline file or in a folder below.')
    ]
    items: Annotated[bool, Meta(description="The function is given single readings as dicts, and not Frames.")] = False
    fields: Annotated[
        dict[str, str] | None, Meta(description="The fields of what comes out, with types. Absent: those that go in.")
    ] = None
    options: Annotated[
        dict[str, Any], Meta(description="Arguments by name, for a function or class that takes any.")
    ] = {}


class Python(Operator):
    """RxPY operators of one's own: `Observable[Frame] -> Observable[Frame]`, or over dicts with `items = true`.

        temperature of s1     20    24     22
        smooth, weight 0.5    20    22     22

        [operators.smoothed]
        type = "python"
        input = "greenhouse"
        function = "smooth.py:Smooth"
        options = { field = "temperature", weight = 0.5 }

    With items, for what comes seldom (about 10 µs a reading in large Frames, 30 for one alone):

        [operators.rises]
        type = "python"
        input = "greenhouse"
        function = "smooth.py:rises"
        items = true
        fields = { rise = "float" }

    A function is called with the observable, and `options`; a class with `options`, and what it makes then with the observable.
    What comes out has `fields`. A Frame that comes out keeps `time`, `key`, `seq` and `progress` of the rows it is made of, and is
    never changed. An item is `{key, "time", fields}`: the key under its name, `time` in ns, None where a value is missing; what is
    emitted while it is pushed is its row, with its key and time unless it says others; names that are no `fields` are left out.
    No operator that waits for a clock (`delay`, `debounce`, `interval`): what is emitted later is an error. The file must not
    lie outside of the pipeline's folder; it is read when the pipeline starts or is reloaded, and may import what is installed.
    An exception costs the rows that it is about: an item alone; of a Frame, halves are tried until the guilty row is alone, so
    do what can raise before what changes state. RxPY ends a chain that failed: it is made anew, its object stays.
    State: a class may have `snapshot(self) -> dict` and `restore(self, state)`: numbers, text, lists, dicts and numpy arrays. It is
    saved like any operator's, and a restart is exact. What else a chain remembers (`scan`, `pairwise`, variables) is not saved:
    at a restart it begins anew with what came since the last checkpoint. After a change of the code an object is given the
    state that the earlier one saved; if it does not take it, it begins anew, which is logged.
    A class may have `forget(self, key)`, too: it is told of a key that is forgotten (`headwater forget`).
    Memory: that of the function.
    """

    def __init__(self, settings: PythonSettings, context: OperatorContext) -> None:
        super().__init__(settings, context)
        fields = context.fields if settings.fields is None else parse_fields(settings.fields, context)
        self.schema = Schema(context.schema.key, fields)
        self.items = settings.items
        self._pushing = False
        self._came: list[Any] = []
        self._error: Exception | None = None
        self.target: Any = None
        self.call: Callable[[Any], Any] = lambda source: source
        try:
            self._prepare(_load(settings.function, context.folder), settings.options)
            self._connect()
            _check_state(self.snapshot())
        except _Wrong as error:
            context.problem("function", str(error))
        except Exception as error:  # noqa: BLE001 - it is the user's, and may raise anything
            context.problem("function", f"{settings.function} fails at the start: {type(error).__name__}: {error}")

    def _prepare(self, made: Any, options: dict[str, Any]) -> None:
        if isinstance(made, type):
            self.target = self.call = made(**options)
        else:
            self.call = lambda source: made(source, **options)

    def _connect(self) -> None:
        """Begin the chain. RxPY ends one that has failed."""
        from reactivex import Observable
        from reactivex.subject import Subject

        self._inlet: Subject[Any] = Subject()
        chain = self.call(self._inlet)
        if not isinstance(chain, Observable):
            raise _Wrong(f"it must give an Observable, and gave {type(chain).__name__}")
        chain.subscribe(self._emitted, self._failed)

    def _emitted(self, what: Any) -> None:
        if not self._pushing:
            raise RuntimeError("emitted when nothing was pushed: operators that wait for a clock cannot be used here")
        self._came.append(what)

    def _failed(self, error: Exception) -> None:
        self._error = error

    def _push(self, what: Any) -> list[Any]:
        """What comes out for it. Raises what the chain raised, which then is begun anew."""
        self._pushing = True
        try:
            self._inlet.on_next(what)
        finally:
            self._pushing = False
            came, self._came = self._came, []
            error, self._error = self._error, None
            if error is not None:
                self._connect()
        if error is not None:
            raise error
        return came

    def on_frame(self, frame: Frame) -> Frame:
        return self._each(frame) if self.items else self._whole(frame)

    # --- Frames ---

    def _whole(self, frame: Frame) -> Frame:
        came = self._push(_guarded(frame))
        for out in came:
            self._check(out, frame)
        return in_order(concatenate(came, frame.progress)) if came else empty(self.schema, frame.progress)

    def _check(self, out: Any, frame: Frame) -> None:
        """What others rely on."""
        if not isinstance(out, Frame):
            raise TypeError(f"it must give Frames, and gave {type(out).__name__}")
        if list(out.columns) != list(self.schema.fields):
            raise ValueError(f"it gave the fields {', '.join(out.columns)}, not {', '.join(self.schema.fields)}")
        if out.time.dtype != np.int64 or not len(out.time) == len(out.key) == len(out.seq):
            raise ValueError("time, key and seq of what it gave do not fit each other")
        first = min(frame.seq[:1].tolist() + frame.progress.seq[:1].tolist(), default=frame.progress.next_seq)
        if len(out) and not first <= out.seq.min() <= out.seq.max() <= frame.progress.next_seq:
            raise ValueError("seq of what it gave must be that of the rows it is made of")
        for name, field in self.schema.fields.items():
            values, present = out.columns[name]
            if values.dtype != DTYPES[field.kind] or len(values) != len(out):
                raise ValueError(f"{name} is {len(values)} x {values.dtype}, not {len(out)} x {field.kind}")
            if present is not None and not field.optional and not present.all():
                raise ValueError(f'{name} is missing somewhere; declare it "{field}?"')

    # --- items ---

    def _each(self, frame: Frame) -> Frame:
        out: list[tuple[int, int, int, list[Any]]] = []
        for n, item in enumerate(rows_of(frame, self.context.schema, self.context.keys.names, "ns")):
            try:
                cause = int(frame.time[n]), int(frame.key[n]), int(frame.seq[n])
                out += [self._row(row, *cause) for row in self._push(item)]
            except Exception as error:  # noqa: BLE001 - it is the user's, and may raise anything
                self.context.refuse(frame.take(slice(n, n + 1)), f"{type(error).__name__}: {error}")
        if not out:
            return empty(self.schema, frame.progress)
        times, keys, seqs, values = zip(*out, strict=True)
        columns = {
            name: column(field.kind, [row[i] for row in values])
            for i, (name, field) in enumerate(self.schema.fields.items())
        }
        return Frame(
            np.array(times, np.int64), np.array(keys, np.int32), np.array(seqs, np.int64), columns, frame.progress
        )

    def _row(self, row: Any, time: int, key: int, seq: int) -> tuple[int, int, int, list[Any]]:
        if not isinstance(row, dict):
            raise TypeError(f"it must give dicts, and gave {type(row).__name__}")
        time = int(row.get("time", time))
        name = self.schema.key
        if name is not None and name in row:
            keys = self.context.keys
            key = keys[row[name]]
            if key < 0:
                raise ValueError(keys.why(key))
        return time, key, seq, [_fitting(n, f, row.get(n)) for n, f in self.schema.fields.items()]

    # --- state ---

    def forget(self, keys: Ints, frame: Frame) -> None:
        super().forget(keys, frame)
        if hasattr(self.target, "forget"):
            for key in keys.tolist():
                self.target.forget(self.context.keys.names[key])

    def memory(self) -> Memory:
        return Memory(beyond="what the function keeps")

    def snapshot(self) -> State:
        if not hasattr(self.target, "snapshot"):
            return {}
        return {"own": copy.deepcopy(self.target.snapshot())}

    def restore(self, state: State) -> None:
        if "own" not in state or not hasattr(self.target, "restore"):
            return
        try:
            self.target.restore(state["own"])
        except Exception:
            log.exception("%s: its code does not take the state that was saved, and begins anew", self.context.name)


class _Wrong(Exception):
    """What is wrong with the function, told as a problem of the setting."""


def _load(function: str, folder: Path) -> Any:
    """The function or class. The file is run once for each operator: two of one file share nothing."""
    file, _, name = function.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise _Wrong(f'"{function}" names no function; write it as "smooth.py:smooth"')
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise _Wrong(f'"{file}" lies outside of the folder of the pipeline file')
    if not path.is_file():
        raise _Wrong(f'there is no file "{file}" beside the pipeline file')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(made := getattr(module, name, None)):
        known = [n for n, of in vars(module).items() if callable(of) and not n.startswith("_")]
        raise _Wrong(f'there is no function "{name}" in "{file}"{did_you_mean(name, known)}')
    return made


def _guarded(frame: Frame) -> Frame:
    """The same rows over arrays that cannot be written to: other operators see them, too."""
    columns = {
        name: Column(_fixed(c.values), None if c.present is None else _fixed(c.present))
        for name, c in frame.columns.items()
    }
    return Frame(_fixed(frame.time), _fixed(frame.key), _fixed(frame.seq), columns, frame.progress)


def _fixed(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


_TYPES: dict[str, type] = {"float": float, "int": int, "bool": bool, "string": str, "time": int}


def _fitting(name: str, field: Field, value: Any) -> Any:
    """The value as one of this field; ValueError if it is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        if field.optional:
            return None
        raise ValueError(f"{name}: missing")
    if field.kind == "float" and type(value) is int:
        value = float(value)
    if type(value) is not _TYPES[field.kind]:
        raise ValueError(f"{name}: expected {field.kind}, got {type(value).__name__}")
    if value != value and not field.nan:
        raise ValueError(f"{name}: is NaN")
    if type(value) is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name}: is beyond 64 bits")
    return value


def _check_state(state: Any) -> None:
    """What a checkpoint can hold. _Wrong if it is something else."""
    if isinstance(state, dict):
        for name, value in state.items():
            if not isinstance(name, str | int):
                raise _Wrong(f"its snapshot has a name that is a {type(name).__name__}")
            _check_state(value)
    elif isinstance(state, list | tuple):
        for value in state:
            _check_state(value)
    elif not (state is None or isinstance(state, str | bytes | int | float | np.generic | np.ndarray)):
        raise _Wrong(
            f"its snapshot holds a {type(state).__name__}: numbers, text, lists, dicts and arrays can be saved"
        )
