"""Results of tests as JUnit XML, which CI systems show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET


class Ran(NamedTuple):
    name: str
    line: int
    seconds: float
    lines: Sequence[str]  # what was not as expected; none: it has passed


def write(path: Path, file: Path, pipeline: str, tests: Sequence[Ran]) -> None:
    failures = str(sum(bool(test.lines) for test in tests))
    counts = {
        "tests": str(len(tests)),
        "failures": failures,
        "errors": "0",
        "time": _time(sum(t.seconds for t in tests)),
    }
    top = ET.Element("testsuites", counts)
    suite = ET.SubElement(top, "testsuite", {"name": pipeline, "file": str(file), **counts})
    for test in tests:
        where = {"classname": pipeline, "file": str(file), "line": str(test.line), "time": _time(test.seconds)}
        case = ET.SubElement(suite, "testcase", {"name": _plain(test.name), **where})
        if test.lines:
            failure = ET.SubElement(case, "failure", {"message": _plain(test.lines[0])})
            failure.text = _plain("\n".join(test.lines))
    ET.indent(top)
    path.write_bytes(ET.tostring(top, "utf-8", xml_declaration=True) + b"\n")


def _time(seconds: float) -> str:
    return f"{seconds:.3f}"


def _plain(text: str) -> str:
    """Without what XML cannot hold."""
    return "".join(c if c in "\t\n" or c.isprintable() else "\ufffd" for c in text)
