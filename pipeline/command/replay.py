"""`headwater replay [FILE]`: the file, or a changed one, over what was recorded: which alerts would come, go or move."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file, add_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config import Config
    from pipeline.graph import Graph
    from pipeline.trial.episodes import Comparison, Difference, Episode, Row
    from pipeline.trial.recorded import Recorded
    from pipeline.trial.replay import Outcome, Wish
    from pipeline.trial.whatif import Change

SHOWN = 40  # differences of a kind that are shown as text
WEEK = 7 * 86_400_000_000_000


EXAMPLES = (
    "headwater replay --from -7d",
    'headwater replay --from -7d --set operators.hot.when="value > 80"',
    'headwater replay --from -7d --sweep operators.hot.when="value > {x}" --values 70..90:5',
)
STATUS = {
    1: "with --fail-on-difference: an alert would come, go or move",
    2: "wrong usage, a pipeline file with problems, or nothing that could be replayed",
    3: "there is no history, or it cannot be read",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_file(parser)
    add("--from", dest="start", metavar="T", help="from this time on: 2026-01-31T12:00:00Z, -1d (absent: all)")
    add("--to", dest="end", metavar="T", help="before this time")
    add(
        "--warm-up",
        default="1 d",
        metavar="TIME",
        help="replay so much before --from, to have the state (default: 1 d)",
    )
    add(
        "--input",
        action="append",
        default=[],
        metavar="SOURCE=PATH",
        help="readings of a file instead; may be repeated",
    )
    add("--state", type=Path, metavar="FOLDER", help="whose history (default: the state folder of FILE)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="changes",
        help="change a setting; may be repeated",
    )
    add("--sweep", metavar="PATH=VALUE", help="a setting with {x} in it, in whose place each of --values is tried")
    add("--values", metavar="LIST", help="28,30,32 or a range, 28..36:2")
    add_format(parser, "text", "json")
    add("--fail-on-difference", action="store_true", help="exit with 1 if the alerts differ")


def main(options: argparse.Namespace) -> int:
    import apsw

    from pipeline.trial.given import Unreadable
    from pipeline.trial.replay import Unreplayable
    from pipeline.trial.whatif import Mistaken
    from pipeline.web import HttpProblem

    try:
        return _run(options)
    except (Mistaken, Unreadable, Unreplayable, HttpProblem) as error:
        print(f"headwater replay: {error}", file=sys.stderr)
        return 2
    except apsw.Error as error:
        print(f"the history cannot be read: {error} (`headwater doctor` looks at it)", file=sys.stderr)
        return 3


def _run(options: argparse.Namespace) -> int:
    from pipeline.clock import RealClock
    from pipeline.journal import look
    from pipeline.trial import whatif
    from pipeline.trial.recorded import Recorded
    from pipeline.trial.replay import replay

    if (options.sweep is None) != (options.values is None):
        raise whatif.Mistaken("--sweep says what changes, --values how: give both")
    changes = [whatif.parse(text) for text in options.changes]
    swept = whatif.parse(options.sweep) if options.sweep is not None else None
    if swept is not None and whatif.PLACE not in swept.text:
        raise whatif.Mistaken(
            f'--sweep: write {whatif.PLACE} where the values go, as operators.hot.when="value > {{x}}"'
        )
    values = whatif.values(options.values) if swept is not None else [""]
    tried = [[*changes, *([swept.at(x)] if swept else [])] for x in values]
    files = [_checked(options.file, what) for what in tried]
    config, graph = files[0]
    wish = _wish(options, config)
    folder = options.state or config.pipeline.state
    there = look.database(folder).exists()
    if not there and not wish.inputs:
        print(
            f"{folder} holds no history: nothing has run there yet (--state names another, --input a file)",
            file=sys.stderr,
        )
        return 3
    history = Recorded(folder) if there else None
    try:
        outcome = replay([file for file, _ in files], graph, history, wish, RealClock().wall())
        if swept is not None:
            _tell_sweep(outcome, swept, values, options)
            return 0
        return _tell(outcome, options, history)
    finally:
        if history is not None:
            history.close()


def _checked(path: Path, changes: Sequence[Change]) -> tuple[Config, Graph]:
    """The file with these changes. ConfigError with every problem."""
    from pipeline.clock import RealClock
    from pipeline.config import load
    from pipeline.frame import KeyTable
    from pipeline.graph import Graph
    from pipeline.problem import ConfigError
    from pipeline.trial.whatif import changing

    config = load(path, change=changing(changes))
    graph = Graph(config, KeyTable(limit=config.pipeline.max_keys), RealClock())
    if problems := [*config.problems, *graph.problems]:
        raise ConfigError(path, problems)
    return config, graph


def _wish(options: argparse.Namespace, config: Config) -> Wish:
    from pipeline.clock import RealClock
    from pipeline.problem import did_you_mean
    from pipeline.quantity import duration
    from pipeline.trial.replay import Wish
    from pipeline.trial.whatif import Mistaken
    from sinks.query_server.questions import parse_time

    start, end = (
        None if text is None else parse_time(name, text, RealClock())
        for name, text in (("--from", options.start), ("--to", options.end))
    )
    try:
        warm_up = duration(options.warm_up)
    except ValueError as error:
        raise Mistaken(f"--warm-up: {error}") from None
    sources = [name for name, node in config.nodes.items() if node.kind == "source"]
    inputs = {}
    for text in options.input:
        name, equals, path = text.partition("=")
        if not equals:
            raise Mistaken(f'--input: write SOURCE=PATH, not "{text}"')
        if name not in sources:
            hint = did_you_mean(name, sources) or f"; there are: {', '.join(sources)}"
            raise Mistaken(f'--input: there is no source "{name}"{hint}')
        inputs[name] = Path(path)
    return Wish(start, end, warm_up, inputs)


# --- what is told -----------------------------------------------------------------------------------------------------


def _tell(outcome: Outcome, options: argparse.Namespace, history: Recorded | None) -> int:
    (story,) = outcome.stories
    comparison = outcome.comparison(story) if outcome.recorded else None
    if options.format == "json":
        _print_json(_as_json(outcome, comparison))
    else:
        for line in _lines(outcome, comparison):
            print(line)
    return 1 if options.fail_on_difference and comparison is not None and comparison.differences else 0


def _lines(outcome: Outcome, comparison: Comparison | None) -> Iterator[str]:
    yield from _head(outcome)
    (story,) = outcome.stories
    if comparison is None:
        found = [e for told in story.alerts.values() for e in told if _in_span(e, outcome)]
        yield from _some([_episode(e) for e in sorted(found, key=lambda e: e.rows[0].time)])
        yield from (f"note: {note}" for note in (*outcome.notes, *story.errors))
        yield f"{_count(len(found), 'alert')} would come"
        return
    for kind in ("come", "go", "move"):
        lines = [line for d in comparison.differences if d.kind == kind for line in _difference(d)]
        if lines:
            yield f"would {kind}:"
            yield from _some(lines)
    yield from (f"note: {note}" for note in (*outcome.notes, *story.errors))
    if comparison.reworded:
        yield f"note: {_count(comparison.reworded, 'alert')} would say another message"
    told = ", ".join(f"{n} would {kind}" for kind in ("come", "go", "move") if (n := comparison.count(kind)))
    yield (
        f"{_count(comparison.recorded, 'alert')} recorded, {comparison.replayed} replayed: "
        f"{comparison.same} the same{', ' + told if told else ''}"
    )


def _head(outcome: Outcome) -> Iterator[str]:
    what = ", ".join(f"{n:,} of {name}" for name, n in outcome.readings.items())
    rate = sum(outcome.readings.values()) / max(outcome.seconds, 1e-9)
    yield f"{_span(outcome)}: readings: {what} ({outcome.seconds:.1f} s, {rate:,.0f}/s)"


def _span(outcome: Outcome) -> str:
    from pipeline.frame import instant_text
    from pipeline.trial.replay import FAR

    return f"{instant_text(outcome.start)} to {instant_text(outcome.end) if outcome.end < FAR else 'the last'}"


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"  {line}" for line in lines[:SHOWN])
    if len(lines) > SHOWN:
        yield f"  … and {len(lines) - SHOWN:,} more (--format json has all)"


def _difference(difference: Difference) -> Iterator[str]:
    if difference.kind != "move":
        yield from (_episode(e) for e in (*difference.recorded, *difference.replayed))
        return
    name = _name(difference.alert, difference.key)
    for recorded, replayed in difference.pairs:
        if recorded is not None and replayed is not None:
            yield f"{name}  {_word(recorded)} {_moved(recorded, replayed)}"
        elif replayed is not None:
            yield f"{name}  + {_word(replayed)} {_time(replayed.time)}"
        elif recorded is not None:
            yield f"{name}  - {_word(recorded)} {_time(recorded.time)}"


def _moved(recorded: Row, replayed: Row) -> str:
    from pipeline.trial.episodes import changed

    if recorded.time != replayed.time:
        return f"{_time(recorded.time)} -> {_time(replayed.time)}"
    fields = changed(recorded, replayed)
    said = ", ".join(f"{n} {_value(n, recorded)} -> {_value(n, replayed)}" for n in fields)
    return f"{_time(recorded.time)}: {said}"


def _value(name: str, row: Row) -> Any:
    value = row.values[name]
    return _time(value) if name in ("since", "reading") and value is not None else value


def _episode(episode: Episode) -> str:
    from pipeline.quantity import Duration

    first, last = episode.rows[0], episode.rows[-1]
    over = "still firing" if last.state == "firing" else f"to {_time(last.time)}, {Duration(last.time - first.time)}"
    return f"{_name(episode.alert, episode.key)}  {episode.level or ''}  {_time(first.time)} {over}"


def _name(alert: str, key: str) -> str:
    return f"{alert}  {key}" if key else alert


def _word(row: Row) -> str:
    return f"{row.state} {row.level}" if row.level else row.state


def _time(ns: int) -> str:
    from pipeline.frame import instant_text

    return instant_text(ns)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _in_span(episode: Episode, outcome: Outcome) -> bool:
    return any(outcome.start <= row.time < outcome.end for row in episode.rows)


# --- a sweep ----------------------------------------------------------------------------------------------------------


def _tell_sweep(outcome: Outcome, swept: Change, values: Sequence[str], options: argparse.Namespace) -> None:
    """How often each alert would begin to fire in a week, by value."""
    from pipeline.problem import dotted
    from pipeline.trial.episodes import starts

    names = list(outcome.stories[0].alerts)
    own = [name for name in names if name == swept.path[1]] or names
    end = min(outcome.end, outcome.newest)
    weeks = max(end - outcome.start, 1) / WEEK
    counts = [[starts(story.alerts[name], outcome.start, outcome.end) for name in own] for story in outcome.stories]
    before = [starts(outcome.recorded.get(name, ()), outcome.start, outcome.end) for name in own]
    errors = list(dict.fromkeys(error for story in outcome.stories for error in story.errors))
    if options.format == "json":
        tried = [
            {
                "x": x,
                "alerts": dict(zip(own, n, strict=True)),
                "per_week": {a: c / weeks for a, c in zip(own, n, strict=True)},
            }
            for x, n in zip(values, counts, strict=True)
        ]
        _print_json(
            {
                **_json_head(outcome),
                "sweep": dotted(swept.path),
                "weeks": weeks,
                "tried": tried,
                "recorded": {a: c for a, c in zip(own, before, strict=True) if a in outcome.recorded},
                "notes": [*outcome.notes, *errors],
            }
        )
        return
    for line in _head(outcome):
        print(line)
    lines = [["x", *(f"{name} {what}" for name in own for what in ("alerts", "a week"))]]
    for x, n in [*zip(values, counts, strict=True), *([("recorded", before)] if outcome.recorded else [])]:
        lines.append([x, *(cell for c in n for cell in (str(c), f"{c / weeks:.1f}"))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line_ in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line_, widths, strict=True)))
    for note in (*outcome.notes, *errors):
        print(f"note: {note}")


# --- for programs -----------------------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    import orjson

    print(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode())


def _json_head(outcome: Outcome) -> dict[str, Any]:
    from pipeline.trial.replay import FAR

    end = _time(outcome.end) if outcome.end < FAR else None
    return {"from": _time(outcome.start), "to": end, "readings": outcome.readings, "seconds": outcome.seconds}


def _as_json(outcome: Outcome, comparison: Comparison | None) -> dict[str, Any]:
    (story,) = outcome.stories
    told = {**_json_head(outcome), "notes": [*outcome.notes, *story.errors]}
    if comparison is None:
        found = [e for of in story.alerts.values() for e in of if _in_span(e, outcome)]
        return {**told, "come": [_json_episode(e) for e in found]}
    numbers = {name: getattr(comparison, name) for name in ("recorded", "replayed", "same", "reworded")}
    kinds: dict[str, list[Any]] = {"come": [], "go": [], "move": []}
    for d in comparison.differences:
        if d.kind == "move":
            pairs = [{"recorded": _json_row(a), "replayed": _json_row(b)} for a, b in d.pairs]
            kinds["move"].append({"alert": d.alert, "key": d.key, "rows": pairs})
        else:
            kinds[d.kind] += [_json_episode(e) for e in (*d.recorded, *d.replayed)]
    return {**told, **numbers, **kinds}


def _json_episode(episode: Episode) -> dict[str, Any]:
    return {"alert": episode.alert, "key": episode.key, "rows": [_json_row(row) for row in episode.rows]}


def _json_row(row: Row | None) -> dict[str, Any] | None:
    """As the history shows it."""
    if row is None:
        return None
    return {n: _time(v) if n in ("time", "since", "reading") and v is not None else v for n, v in row.values.items()}
