"""Imports run one way, down: command -> engine -> graph -> components -> what components are made of.

Read from the syntax trees of all files, so that an import in a function or for types only counts too.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top. A file of `pipeline/` that stands nowhere here is of the lowest layer: what components are made of.
LAYERS: list[tuple[str, tuple[str, ...]]] = [
    ("the command and the test kit", ("pipeline.command", "pipeline.testing")),
    ("the engine on virtual time", ("pipeline.trial",)),
    (
        "the engine",
        (
            "pipeline.run",
            "pipeline.recovery",
            "pipeline.journaled",
            "pipeline.engine",
            "pipeline.silence",
            "pipeline.writes",
            "pipeline.services",
            "pipeline.inside",
            "pipeline.metrics",
            "pipeline.server",
            "pipeline.front",
            "pipeline.delivery",
            "pipeline.intake",
            "pipeline.inbox",
            "pipeline.latest",
            "pipeline.letters",
            "pipeline.limits",
            "pipeline.flash",
            "pipeline.forgetting",
            "pipeline.identity",
            "pipeline.outside",
            "pipeline.compactor",
            "pipeline.estimate",
            "pipeline.journal",
        ),
    ),
    (
        "the graph",
        (
            "pipeline.graph",
            "pipeline.merge",
            "pipeline.config",
            "pipeline.masked",
            "pipeline.nodes",
            "pipeline.file_schema",
            "pipeline.advice",
            "pipeline.drawing",
        ),
    ),
    ("a component", ("operators", "sinks", "pipeline.sources", "pipeline.codecs")),
    ("what components are made of", ("pipeline",)),
]
COMPONENTS = ("operators.", "sinks.", "pipeline.sources.", "pipeline.codecs.")


def name_of(file: Path) -> str:
    """The module that a file is."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(f): f for folder in ("pipeline", "operators", "sinks") for f in sorted((ROOT / folder).rglob("*.py"))}


def imports(tree: ast.AST, *, when_loaded: bool = False) -> set[str]:
    """Our modules that a file imports. `when_loaded`: only where it runs at import, not in functions or for types."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}; write it in full"
            module = node.module or ""
            found |= {f"{module}.{a.name}" if f"{module}.{a.name}" in FILES else module for a in node.names}
        elif when_loaded and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        elif when_loaded and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
    return found & FILES.keys()


def layer(module: str) -> int:
    """0 is the top."""
    return next(i for i, (_, of) in enumerate(LAYERS) if any(module == m or module.startswith(m + ".") for m in of))


def component(module: str) -> str | None:
    """The component that a module is, or is a part of."""
    for prefix in COMPONENTS:
        if module.startswith(prefix):
            return prefix + module.removeprefix(prefix).partition(".")[0]
    return None


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down_only(module: str) -> None:
    """Never to a higher layer; and no component knows another: what two need moves down."""
    for other in imports(ast.parse(FILES[module].read_text())):
        upwards = f"{module} ({LAYERS[layer(module)][0]}) imports {other} ({LAYERS[layer(other)][0]})"
        assert layer(module) <= layer(other), upwards
        if component(module) and component(other):
            assert component(module) == component(other), f"{module} imports {other}, another component"


def test_no_circle() -> None:
    """Every file can be imported first. (CycleError shows the way round.)"""
    trees = {module: ast.parse(file.read_text()) for module, file in FILES.items()}
    TopologicalSorter({m: imports(tree, when_loaded=True) for m, tree in trees.items()}).prepare()


def loaded(statement: str) -> set[str]:
    """The top-level modules that are there after a statement, in a fresh process."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout))


HEAVY = {"aiohttp", "apsw", "hypothesis", "msgspec", "numpy", "orjson", "psutil", "reactivex", "rich", "uvloop"}


def test_the_command_starts_with_the_standard_library_alone() -> None:
    """`headwater --help`, and a mistyped command, answer at once."""
    assert not loaded("import pipeline.command.__main__") & HEAVY


def test_files_in_and_out_need_no_web_server() -> None:
    """A pipeline from a file to a file loads neither the HTTP server nor what reads this machine's sensors."""
    parts = "pipeline.run, pipeline.sources.file, pipeline.codecs.json, pipeline.codecs.csv, sinks.file"
    operators = ", ".join(m for m in FILES if m.startswith("operators."))
    assert not loaded(f"import {parts}, {operators}") & {"aiohttp", "hypothesis", "psutil", "rich"}


def test_the_kit_does_not_need_hypothesis() -> None:
    """Other people's tests may use it without."""
    assert "hypothesis" not in loaded("import pipeline.testing")


def test_the_top_level_holds_what_it_should() -> None:
    """What a test or a tool has left there was once committed."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a checkout")
    files = {"README.md", "LICENSE", "Makefile", "pipeline.toml", "pyproject.toml", ".gitignore"}
    folders = {"pipeline", "operators", "sinks", "tests", "benchmarks", "examples", "docs", ".ci"}
    assert {file.partition("/")[0] for file in done.stdout.splitlines()} == files | folders
