"""A table of the pipeline file -> a settings Struct, with every mistake in it and not only the first.

msgspec stops at the first error, so the table is converted field by field. After a mistake conversion goes on with a
stand-in (what was most likely meant, the default, or a zero), so that the component can still be made and asked what it
finds wrong. Where a stand-in would mislead those that read the component's output, there is none: nothing is made.
"""

from __future__ import annotations

import enum
import operator
import re
import typing
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline import quantity
from pipeline.kinds import LISTS, TABLES, TOML_KINDS, alternatives, bare, forms, in_words, is_struct, listed
from pipeline.problem import nearest
from pipeline.quantity import Duration, Secret, Size

Where = tuple[str | int, ...]
Found = list[tuple[Where, str]]

_GOT: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
    list: "a list",
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


class Read(NamedTuple):
    settings: Any  # None: too much is wrong
    found: Found


def read(kind: Any, table: Any, where: Where = (), common: Collection[str] = ()) -> Read:
    """`table` as `kind` (a Struct, or a tagged union of them). `common`: settings that are known but not part of it."""
    conversion = _Conversion()
    made = conversion.value(kind, table, where, common)
    return Read(made if conversion.sound and made is not _WRONG else None, conversion.found)


def names(kind: Any) -> list[str]:
    """The settings of a Struct, or of all in a union."""
    found: dict[str, None] = {}
    for struct in alternatives(kind):
        if tag := struct.__struct_config__.tag_field:
            found[tag] = None
        found |= dict.fromkeys(field.encode_name for field in msgspec.structs.fields(struct))
    return list(found)


_WRONG: Any = object()  # what conversion gives where there is no value to go on with


class _Conversion:
    """One table. `found` has the mistakes; `sound` is False once there can be no stand-in for one."""

    def __init__(self) -> None:
        self.found: Found = []
        self.sound = True

    def wrong(self, where: Where, text: str) -> Any:
        self.found.append((where, text))
        return _WRONG

    def value(self, kind: Any, value: Any, where: Where, common: Collection[str] = ()) -> Any:
        """`value` as `kind`; _WRONG, or what was most likely meant, after a mistake."""
        kind, limits = bare(kind)
        arms = alternatives(kind)
        if len(arms) > 1:
            return self._one_of(arms, value, where, common)
        kind, more = bare(arms[0])
        made = self._plain(kind, value, where, common)
        if made is not _WRONG and (limits or more) and (broken := _broken([*limits, *more], made)):
            return self.wrong(where, broken)
        return made

    def _plain(self, kind: Any, value: Any, where: Where, common: Collection[str]) -> Any:
        """A kind that is no union and has no limits."""
        origin = typing.get_origin(kind) or kind
        if kind in (Any, object):
            made = value
        elif is_struct(kind):
            made = self._struct(kind, value, where, common)
        elif origin in TABLES:
            made = self._table(kind, value, where)
        elif origin in LISTS:
            made = self._list(kind, origin, value, where)
        elif origin is Literal:
            made = self._word(typing.get_args(kind), value, where)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            word = self._word([member.value for member in kind], value, where)
            made = word if word is _WRONG else kind(word)
        else:
            made = self._scalar(kind, value, where)
        return made

    def _scalar(self, kind: Any, value: Any, where: Where) -> Any:
        wanted = TOML_KINDS.get(kind)
        if wanted is not None and type(value) not in wanted:
            return self.wrong(where, f"expected {in_words(kind)}, got {_form(value)}")
        try:
            return msgspec.convert(value, kind, dec_hook=quantity.convert)
        except (ValueError, NotImplementedError) as error:  # msgspec.ValidationError is a ValueError
            return self.wrong(where, str(error).partition(" - at `$")[0])

    def _word(self, words: Sequence[Any], value: Any, where: Where) -> Any:
        if any(value == word and type(value) is type(word) for word in words):
            return value
        near = nearest(value, [w for w in words if isinstance(w, str)]) if isinstance(value, str) else None
        got = f'"{value}"' if isinstance(value, str) else _form(value)
        hint = f' (did you mean "{near}"?)' if near else ""
        self.found.append((where, f"expected {listed(words)}, got {got}{hint}"))
        return _WRONG if near is None else near

    def _list(self, kind: Any, origin: Any, value: Any, where: Where) -> Any:
        if not isinstance(value, list):
            return self.wrong(where, f"expected a list, got {_form(value)}")
        kinds = typing.get_args(kind) or (Any,)
        if origin is tuple and len(kinds) > 1 and kinds[-1] is not Ellipsis:
            if len(kinds) != len(value):
                return self.wrong(where, f"expected {len(kinds)} values, got {len(value)}")
        else:
            kinds = (kinds[0],) * len(value)
        made = [self.value(of, item, (*where, i)) for i, (of, item) in enumerate(zip(kinds, value, strict=True))]
        good = [one for one in made if one is not _WRONG]
        return origin(good) if origin in (tuple, set, frozenset) else good

    def _table(self, kind: Any, value: Any, where: Where) -> Any:
        if not isinstance(value, dict):
            return self.wrong(where, f"expected a table, got {_form(value)}")
        of = (typing.get_args(kind) or (str, Any))[1]
        made = {name: self.value(of, item, (*where, name)) for name, item in value.items()}
        return {name: self._by_kind(of) if one is _WRONG else one for name, one in made.items()}

    def _one_of(self, arms: Sequence[Any], value: Any, where: Where, common: Collection[str]) -> Any:
        """A union: how the value is written decides; what only some texts can be goes before plain text."""
        structs = [arm for arm in arms if is_struct(arm)]
        if isinstance(value, dict) and structs:
            return self._tagged(structs, value, where, common)
        others = [arm for arm in arms if not is_struct(arm)]
        for arm in sorted(others, key=lambda a: bare(a)[0] is str):
            trial = _Conversion()
            made = trial.value(arm, value, where)
            if not trial.found:
                return made
        alike = [arm for arm in others if type(value) in forms(bare(arm)[0])]
        if len(alike) == 1:  # only this one is written so: its own message says more
            return self.value(alike[0], value, where)
        said = dict.fromkeys(in_words(bare(arm)[0]) for arm in arms)
        got = f'"{value}"' if isinstance(value, str) and Secret not in arms else _form(value)
        return self.wrong(where, f"expected {' or '.join(said)}, got {got}")

    def _tagged(self, structs: Sequence[Any], value: dict[str, Any], where: Where, common: Collection[str]) -> Any:
        if len(structs) == 1:
            return self._struct(structs[0], value, where, common)
        field = structs[0].__struct_config__.tag_field
        by_tag = {struct.__struct_config__.tag: struct for struct in structs}
        if field not in value:
            return self.wrong(where, f'the setting "{field}" is missing: {listed(list(by_tag))}')
        tag = self._word(list(by_tag), value[field], (*where, field))
        return tag if tag is _WRONG else self._struct(by_tag[tag], value, where, common)

    # --- a Struct ---

    def _struct(self, kind: Any, value: Any, where: Where, common: Collection[str] = ()) -> Any:
        if not isinstance(value, dict):
            return self.wrong(where, f"expected a table, got {_form(value)}")
        before = len(self.found)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        given = {name: name for name in value if name in fields}
        if len(given) < len(value):
            self._unknown(value, {*fields, *common, kind.__struct_config__.tag_field} - {None}, where, given)
        made: dict[str, Any] = {}
        for name, field in fields.items():
            if name in given:
                made[field.name] = self._field(field, value, given[name], where)
            elif field.required:
                self.found.append((where, f'the setting "{name}" is missing'))
                made[field.name] = self._stand_in(field)
        if not self.sound:
            return _WRONG
        try:
            return kind(**made)
        except (ValueError, TypeError) as error:  # of the Struct's own __post_init__
            return _WRONG if len(self.found) > before else self.wrong(where, str(error))

    def _unknown(self, value: dict[str, Any], known: set[str], where: Where, given: dict[str, str]) -> None:
        """Settings that do not exist. If one that is not given was most likely meant, it gets the value."""
        for name, item in value.items():
            if name in known:
                continue
            near = nearest(name, known - value.keys()) or nearest(name, known)
            hint = f' (did you mean "{near}"?)' if near else f"; there are: {', '.join(sorted(known))}"
            self.found.append(((*where, name), f'unknown setting "{name}"{hint}'))
            if near is not None and near not in value:
                given.setdefault(near, name)
            elif isinstance(item, dict | list):
                self.sound = False  # it may have been meant to shape what comes out

    def _field(self, field: Any, table: dict[str, Any], name: str, where: Where) -> Any:
        before = len(self.found)
        made = self.value(field.type, table[name], (*where, name))
        if name != field.encode_name:
            del self.found[before:]  # a guess: the name is what is wrong
        if made is not _WRONG:
            return made
        if isinstance(table[name], dict | list) or forms(bare(alternatives(field.type)[0])[0]) & {dict, list}:
            self.sound = False
        return self._stand_in(field)

    def _stand_in(self, field: Any) -> Any:
        if field.required:
            return self._by_kind(field.type)
        return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()

    def _by_kind(self, kind: Any) -> Any:
        for arm in alternatives(bare(kind)[0]):
            plain = bare(arm)[0]
            if plain in _STAND_INS:
                return _STAND_INS[plain]
            if typing.get_origin(plain) is Literal:
                return typing.get_args(plain)[0]
        self.sound = False
        return None


def _broken(limits: Sequence[msgspec.Meta], value: Any) -> str | None:
    """Which limit a value breaks, in words."""
    for limit in limits:
        for name, holds, said in _LIMITS:
            bound = getattr(limit, name)
            if bound is not None and not holds(value, bound):
                shown = type(value)(bound) if isinstance(value, Duration | Size) else bound
                return f"must {said.format(shown)}"
    return None


_LIMITS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("gt", operator.gt, "be more than {}"),
    ("ge", operator.ge, "be at least {}"),
    ("lt", operator.lt, "be less than {}"),
    ("le", operator.le, "be at most {}"),
    ("multiple_of", lambda value, step: value % step == 0, "be a multiple of {}"),
    ("pattern", lambda value, pattern: re.search(pattern, value) is not None, "match {}"),
    ("min_length", lambda value, least: len(value) >= least, "have a length of at least {}"),
    ("max_length", lambda value, most: len(value) <= most, "have a length of at most {}"),
)


def _form(value: Any) -> str:
    """What was given, by its form and not by its content, which may be a secret."""
    return _GOT.get(type(value), "a date or time")
