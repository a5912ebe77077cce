"""A table of the pipeline file -> a settings Struct, with every mistake in it and not only the first.

msgspec stops at the first error, so the table is converted field by field. After a mistake conversion goes on with a
stand-in (what was most likely meant, the default, or a zero), so that the component can still be made and asked what it
finds wrong. Where a stand-in would mislead those that read the component's output, there is none: nothing is made.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Collection, Mapping, Sequence, Set
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union

import msgspec

from pipeline import quantity
from pipeline.problem import did_you_mean, nearest
from pipeline.quantity import Duration, Secret, Size

Where = tuple[str | int, ...]
Found = list[tuple[Where, str]]

_SAID: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    Path: "text",
    Secret: "text",
    Duration: 'text such as "10 s"',
    Size: 'text such as "100 MB"',
}
_STAND_INS: dict[Any, Any] = {
    str: "",
    int: 1,
    float: 1.0,
    bool: False,
    Path: Path(),
    Secret: Secret(""),
    Duration: Duration(1_000_000_000),
    Size: Size(1_000_000),
}
_LISTS = (list, tuple, set, frozenset, Sequence, Set, Collection)
_TABLES = (dict, Mapping)


class Read(NamedTuple):
    settings: Any  # None: too much is wrong
    found: Found


def read(kind: Any, table: Any, where: Where = (), common: Collection[str] = ()) -> Read:
    """`table` as `kind` (a Struct, or a tagged union of them). `common`: settings that are known but not part of it."""
    conversion = _Conversion()
    settings = conversion.value(kind, table, where, common)
    return Read(settings if conversion.sound else None, conversion.found)


def names(kind: Any) -> list[str]:
    """The settings of a Struct, or of all in a union."""
    found: dict[str, None] = {}
    for struct in _arms(kind):
        if tag := struct.__struct_config__.tag_field:
            found[tag] = None
        found |= dict.fromkeys(field.encode_name for field in msgspec.structs.fields(struct))
    return list(found)


class _Wrong(Exception):  # noqa: N818 - a way out of one conversion, not an error that anybody sees
    pass


class _Conversion:
    """One table. `found` has the mistakes; `sound` is False once there can be no stand-in for one."""

    def __init__(self) -> None:
        self.found: Found = []
        self.sound = True

    def wrong(self, where: Where, text: str, kind: Any) -> Any:
        """Note a mistake; gives the stand-in."""
        self.found.append((where, text))
        return self.stand_in(kind)

    def stand_in(self, kind: Any) -> Any:
        for arm in _arms(kind):
            if arm in _STAND_INS:
                return _STAND_INS[arm]
            if typing.get_origin(arm) is Literal:
                return typing.get_args(arm)[0]
        self.sound = False
        return None

    # --- by kind ---

    def value(self, kind: Any, value: Any, where: Where, common: Collection[str] = ()) -> Any:
        """`value` as `kind`, or a stand-in."""
        kind, limits = _bare(kind)
        arms = _arms(kind)
        if len(arms) > 1:
            return self._one_of(arms, value, where, common)
        kind, more = _bare(arms[0])
        before = len(self.found)
        made = self._plain(kind, value, where, common)
        if len(self.found) == before and (broken := _broken([*limits, *more], made)):
            return self.wrong(where, broken, kind)
        return made

    def _plain(self, kind: Any, value: Any, where: Where, common: Collection[str]) -> Any:
        origin = typing.get_origin(kind) or kind
        if kind is Any or kind is object:
            return value
        if _is_struct(kind):
            return self._struct(kind, value, where, common)
        if origin in _TABLES:
            return self._table(kind, value, where)
        if origin in _LISTS:
            return self._list(kind, origin, value, where)
        if origin is Literal:
            return self._word(kind, typing.get_args(kind), value, where)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            word = self._word(kind, [member.value for member in kind], value, where)
            return kind(word) if word is not None else None
        return self._scalar(kind, value, where)

    def _scalar(self, kind: Any, value: Any, where: Where) -> Any:
        wanted = (int, float) if kind is float else _TOML_KIND.get(kind)
        if wanted is not None and (not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool)):
            return self.wrong(where, f"expected {_SAID[kind]}, got {_what(value)}", kind)
        try:
            if kind is Path:
                return Path(value)
            return msgspec.convert(value, kind, dec_hook=quantity.convert)
        except (msgspec.ValidationError, ValueError, NotImplementedError) as error:
            return self.wrong(where, str(error).partition(" - at `$")[0], kind)

    def _word(self, kind: Any, words: Sequence[Any], value: Any, where: Where) -> Any:
        if any(value == word and type(value) is type(word) for word in words):
            return value
        near = nearest(value, [w for w in words if isinstance(w, str)]) if isinstance(value, str) else None
        got = f'"{value}"' if isinstance(value, str) else _what(value)
        hint = f' (did you mean "{near}"?)' if near else ""
        self.found.append((where, f"{got} is not one of {_listed(words)}{hint}"))
        return near or self.stand_in(kind)

    def _list(self, kind: Any, origin: Any, value: Any, where: Where) -> Any:
        if not isinstance(value, list):
            self.sound = False
            return self.wrong(where, f"expected a list, got {_what(value)}", kind)
        arguments = typing.get_args(kind)
        if origin is tuple and arguments and arguments[-1] is not Ellipsis:
            if len(arguments) != len(value):
                return self.wrong(where, f"expected {len(arguments)} values, got {len(value)}", kind)
            return tuple(self.value(a, v, (*where, i)) for i, (a, v) in enumerate(zip(arguments, value, strict=True)))
        of = arguments[0] if arguments else Any
        made = []
        for i, item in enumerate(value):
            before = len(self.found)
            one = self.value(of, item, (*where, i))
            if len(self.found) == before:  # without those that are wrong
                made.append(one)
        return origin(made) if origin in (tuple, set, frozenset) else made

    def _table(self, kind: Any, value: Any, where: Where) -> Any:
        if not isinstance(value, dict):
            self.sound = False
            return self.wrong(where, f"expected a table, got {_what(value)}", kind)
        of = (typing.get_args(kind) or (str, Any))[1]
        return {name: self.value(of, item, (*where, name)) for name, item in value.items()}

    def _one_of(self, arms: Sequence[Any], value: Any, where: Where, common: Collection[str]) -> Any:
        """A union: the form in which the value is written decides; words before plain text, text before what is left."""
        structs = [arm for arm in arms if _is_struct(arm)]
        if isinstance(value, dict) and structs:
            return self._tagged(structs, value, where, common)
        fitting = [arm for arm in arms if not _is_struct(arm)]
        for arm in sorted(fitting, key=lambda a: _bare(a)[0] is str):
            trial = _Conversion()
            made = trial.value(arm, value, where)
            if not trial.found:
                return made
        same = [arm for arm in fitting if _form(arm) == _form_of(value)]
        if len(same) == 1:  # it is written as only one of them is, so that one was meant
            return self.value(same[0], value, where)
        got = f'"{value}"' if isinstance(value, str) and Secret not in arms else _what(value)
        said = dict.fromkeys(_say(arm) for arm in arms)
        return self.wrong(where, f"expected {' or '.join(said)}, got {got}", arms[0])

    def _tagged(self, structs: Sequence[Any], value: dict[str, Any], where: Where, common: Collection[str]) -> Any:
        if len(structs) == 1:
            return self._struct(structs[0], value, where, common)
        field = structs[0].__struct_config__.tag_field
        by_tag = {struct.__struct_config__.tag: struct for struct in structs}
        if field not in value:
            self.sound = False
            return self.wrong(where, f'the setting "{field}" is missing: {_listed(list(by_tag))}', None)
        tag = self._word(Literal[tuple(by_tag)], list(by_tag), value[field], (*where, field))
        return self._struct(by_tag[tag], value, where, common)

    # --- a Struct ---

    def _struct(self, kind: Any, value: Any, where: Where, common: Collection[str] = ()) -> Any:
        if not isinstance(value, dict):
            self.sound = False
            return self.wrong(where, f"expected a table, got {_what(value)}", kind)
        before = len(self.found)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        known = {*fields, *common, *([tag] if (tag := kind.__struct_config__.tag_field) else [])}
        meant = {name: name for name in value if name in fields}
        for name in value:
            if name not in known:
                self._unknown(name, value, known, where, meant)
        made: dict[str, Any] = {}
        for name, field in fields.items():
            if name in meant:
                given = value[meant[name]]
                made[field.name] = self._field(field, given, (*where, meant[name]), guessed=name != meant[name])
            elif field.required:
                self.found.append((where, f'the setting "{name}" is missing'))
                made[field.name] = self.stand_in(field.type)
        try:
            return kind(**made) if self.sound else None
        except (ValueError, TypeError) as error:  # of the Struct's own __post_init__
            self.sound = False
            return None if len(self.found) > before else self.wrong(where, str(error), kind)

    def _unknown(self, name: str, value: Mapping[str, Any], known: Set[str], where: Where, meant: dict[str, str]) -> None:
        """A setting that is not there; if another one was meant that is not given, its value is taken for that."""
        near = nearest(name, known - value.keys()) or nearest(name, known)
        listed = "" if near else f"; known here: {', '.join(sorted(known))}"
        hint = f' (did you mean "{near}"?)' if near else listed
        self.found.append(((*where, name), f'unknown setting "{name}"{hint}'))
        if near is not None and near not in value:
            meant.setdefault(near, name)
        elif isinstance(value[name], dict | list):
            self.sound = False  # something that shapes what comes out may be lost

    def _field(self, field: Any, value: Any, where: Where, *, guessed: bool) -> Any:
        trial = _Conversion()
        made = trial.value(field.type, value, where)
        self.found += () if guessed else trial.found
        if not trial.found:
            return made
        self.sound &= trial.sound or not isinstance(value, dict | list)
        if field.default is not msgspec.NODEFAULT and not isinstance(value, dict | list) and made in _STAND_INS.values():
            return field.default
        if made is None and not field.required:
            return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        return made
