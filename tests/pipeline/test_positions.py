"""Lines of keys, against tomllib (which paths there are) and against texts whose lines were written down on the way."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.positions import line_of, lines

Path = tuple[str | int, ...]

TEXT = r'''# a comment [not.a.table]
title = "a # in \" text ]"
"quoted \" key" = 'C:\path # }'
dotted.key."with space" = 1   # [no]

[server]
tls = { certificate = "}", nested = { deep = [1, "]", { x = 3 }] } }
text = """
[not.a.table]
a = 1 \""" """""
raw = QQQ
[nor.this]
QQQ'
when = 1979-05-27 07:32:00 # a space within a date
list = [ # a comment ]
  "a,b", [1, 2], # more
  { when = "x" },
]

[ sources . "my house" ]
[sources.deep.er]
x = 1
[[test]]
name = "one"
[[test.step]]
at = 1
[[test.step]]
at = 2
[test.step.more]
y = 1
[[test]]
step = [{ at = 1 }]
'''.replace("QQQ", "'''")

EXPECTED: dict[Path, int] = {
    ("title",): 2,
    ('quoted " key',): 3,
    ("dotted", "key", "with space"): 4,
    ("server",): 6,
    ("server", "tls"): 7,
    ("server", "tls", "nested", "deep", 2, "x"): 7,
    ("server", "text"): 8,
    ("server", "raw"): 11,
    ("server", "when"): 14,
    ("server", "list"): 15,
    ("server", "list", 0): 16,
    ("server", "list", 1, 1): 16,
    ("server", "list", 2, "when"): 17,
    ("sources",): 20,
    ("sources", "my house"): 20,
    ("sources", "deep", "er", "x"): 22,
    ("test", 0): 23,
    ("test", 0, "name"): 24,
    ("test", 0, "step", 0, "at"): 26,
    ("test", 0, "step", 1, "at"): 28,
    ("test", 0, "step", 1, "more"): 29,
    ("test", 0, "step", 1, "more", "y"): 30,
    ("test", 1): 31,
    ("test", 1, "step", 0, "at"): 32,
}


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every path in what tomllib reads."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path} | {p for name, item in items for p in paths(item, (*path, name))}


def test_every_form_of_key_and_value() -> None:
    found = lines(TEXT)
    assert {path: found.get(path) for path in EXPECTED} == EXPECTED
    assert found.keys() == paths(tomllib.loads(TEXT)) - {()}


def test_other_line_ends() -> None:
    assert lines(TEXT.replace("\n", "\r\n")) == lines(TEXT)


def test_a_table_stands_where_it_is_declared() -> None:
    """Even if one within it came first."""
    found = lines("[a.b]\nx = 1\n[a]\ny = 2\n[a.c]\n")
    assert (found[("a",)], found[("a", "b")], found[("a", "c")]) == (3, 1, 5)


def test_what_is_not_there_is_looked_for_around() -> None:
    found = lines("\n[a]\n\nb = {}\n")
    looked_for: list[Path] = [("a", "b", "c", 3), ("a", "x"), ("x",), ()]
    assert [line_of(found, path) for path in looked_for] == [4, 2, 1, 1]


# --- any file -------------------------------------------------------------------------------------------------------

names = st.text("ab-_\"'.# é\\=]", min_size=0, max_size=4)
texts = st.sampled_from(['"x"', "'#]'", '"\\"}"', '"""\n[a]\n"""', "'''\n= 3\n'''", '""', "''", '""""""'])
plain = texts | st.sampled_from(["1", "-1.5e3", "true", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "inf", "0xDEAD"])
gaps = st.sampled_from(["", " ", "\n", "\n\n", " # ]}\n"])


def key(name: str) -> str:
    """As tomllib reads it back."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"' if name.strip("ab") else name or '""'


class Written:
    """A TOML text and the line of each path, noted while it is written."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def note(self, path: Path) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def pair(self, path: Path, depth: int, *, inline: bool) -> None:
        self.note(path)
        self.text += key(str(path[-1])) + self.draw(st.sampled_from(["=", " = "]))
        self.value(path, depth, inline=inline)

    def value(self, path: Path, depth: int, *, inline: bool) -> None:
        kind = self.draw(st.sampled_from(["plain", "plain", "array", "table"])) if depth else "plain"
        if kind == "array":
            self.array(path, depth)
        elif kind == "table":
            self.table(path, depth)
        else:
            self.text += self.draw(plain.filter(lambda text: not (inline and "\n" in text)))

    def array(self, path: Path, depth: int) -> None:
        self.text += "["
        for i in range(self.draw(st.integers(0, 3))):
            self.text += ("," if i else "") + self.draw(gaps)
            self.note((*path, i))
            self.value((*path, i), depth - 1, inline=False)
            self.text += self.draw(gaps)
        self.text += "]"

    def table(self, path: Path, depth: int) -> None:
        self.text += "{"
        for i, name in enumerate(self.draw(st.lists(names, max_size=3, unique=True))):
            self.text += ", " if i else " "
            self.pair((*path, name), depth - 1, inline=True)
        self.text += "}"


@st.composite
def documents(draw: st.DrawFn) -> Written:
    """Tables and arrays of tables, each with its pairs."""
    written = Written(draw)
    for name in draw(st.lists(names, max_size=4, unique=True)):
        many = draw(st.integers(0, 2))
        for i in range(max(many, 1)):
            written.text += draw(st.sampled_from(["", "\n", "# [x]\n"]))
            path: Path = (name, i) if many else (name,)
            if i == 0:
                written.note((name,))
            written.note(path)
            written.text += f"[[{key(name)}]]\n" if many else f"[ {key(name)} ] # x\n"
            for setting in draw(st.lists(names, max_size=3, unique=True)):
                written.pair((*path, setting), 3, inline=False)
                written.text += draw(st.sampled_from(["\n", " # end\n", "\n\n"]))
    return written


@given(documents())
def test_any_file(written: Written) -> None:
    """The scanner sees each key that tomllib sees, on the line on which it was written."""
    found = lines(written.text)
    assert found == written.lines
    assert found.keys() == paths(tomllib.loads(written.text)) - {()}
