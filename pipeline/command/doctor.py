"""`headwater doctor [FILE]`: a look at the state folder, while the pipeline runs or not. Nothing there is changed.

Exit status: 0 all is well, 1 something needs a person, 2 the pipeline file is wrong, 3 the database is damaged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.command.usage import add_file, add_format

if TYPE_CHECKING:
    import apsw

    from pipeline.config import Config
    from pipeline.graph import Graph

WAL_BYTES = 8_000_000  # what the log beside the database may take
FREE_BYTES = 20_000_000  # less than this is soon nothing
LONG_JOURNAL = 10_000  # steps: several times what a checkpoint should leave
JUMP_S = 5.0  # a clock that is so much behind what it was has been set back
TOLD = 20  # faults of the database that are shown


EXAMPLES = (
    "headwater doctor",
    "headwater doctor --format json",
)
STATUS = {
    0: "all is well",
    1: "something needs a person",
    3: "the database is damaged",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_file(parser)
    add_format(parser, "text", "json")


def main(options: argparse.Namespace) -> int:
    from pipeline.run import check

    config, graph = check(options.file)
    report = examine(config, graph)
    print(json.dumps(report, ensure_ascii=False) if options.format == "json" else "\n".join(_text(report)))
    return {"ok": 0, "attention": 1, "damaged": 3}[report["status"]]


def examine(config: Config, graph: Graph, now: float | None = None) -> dict[str, Any]:
    """All that can be said of the state folder. `problems`: what needs a person, and what to do."""
    import apsw

    from pipeline.journal import look
    from pipeline.journal.commit import DAMAGED

    folder = config.pipeline.state
    now = time.time() if now is None else now
    report: dict[str, Any] = {"status": "ok", "problems": [], "folder": str(folder), "running": look.in_use(folder)}
    problems: list[str] = report["problems"]
    _set_aside(report, folder)
    if config.pipeline.durability == "none":
        report["note"] = 'durability = "none": nothing is kept on disk'
    elif not look.database(folder).exists():
        report["note"] = "there is no database: nothing has run here yet"
    else:
        try:
            db = look.connect(folder)
            try:
                _database(report, db, config, graph, folder, now)
            finally:
                db.close()
        except DAMAGED as error:
            report["status"] = "damaged"
            problems.append(f"the database is damaged: {error}. {_what_to_do(config)}")
        except apsw.Error as error:
            problems.append(f"the database cannot be read: {error}")
        if report.get("faults"):
            report["status"] = "damaged"
            problems.append(f"the database is damaged: {report['faults'][0]}. {_what_to_do(config)}")
    _space(report, config, graph, folder)
    if problems and report["status"] == "ok":
        report["status"] = "attention"
    return report


def _what_to_do(config: Config) -> str:
    if config.pipeline.on_damage == "set_aside":
        return "The next start gives it a name with the time and begins a new one; keep a copy first if its rows matter"
    return 'No start will use it (on_damage = "stop"): move it away, or put a copy of an earlier one in its place'


def _set_aside(report: dict[str, Any], folder: Path) -> None:
    from pipeline.journal.commit import those_set_aside

    report["set_aside"] = [{"file": file.name, "bytes": file.stat().st_size} for file in those_set_aside(folder)]
    report["problems"] += [
        f"{found['file']} was set aside as damaged: what can be saved, `sqlite3 FILE .recover` shows; then move it away"
        for found in report["set_aside"]
    ]


# --- the database ----------------------------------------------------------------------------------------------------


def _database(
    report: dict[str, Any], db: apsw.Connection, config: Config, graph: Graph, folder: Path, now: float
) -> None:
    from pipeline.journal.schema import DATABASE, FORMAT

    report["format"] = {"found": db.pragma("user_version"), "known": FORMAT}
    if report["format"]["found"] > FORMAT:
        report["problems"].append(
            f"the database is of format {report['format']['found']}, this version knows up to {FORMAT}: "
            "it was written by a later Headwater; install that again"
        )
        return
    main, wal, shm = (folder / f"{DATABASE}{ending}" for ending in ("", "-wal", "-shm"))
    report["bytes"] = sum(file.stat().st_size for file in (main, wal) if file.exists())
    if wal.exists() and not shm.exists():
        report["note"] = "the newest steps are in headwater.db-wal, which cannot be read without headwater.db-shm"
    with db:  # one snapshot for all that is asked
        report["faults"] = _faults(db)
        if report["faults"]:
            return
        report["history"] = _history(db)
        report["delivery"] = _delivery(db, graph)
        report["dead"] = _dead(db, graph, report["problems"])
        _journal(report, db, folder, now)


def _faults(db: apsw.Connection) -> list[str]:
    found = [text for (text,) in db.execute(f"PRAGMA quick_check({TOLD})")]
    return [] if found == ["ok"] else found


def _history(db: apsw.Connection) -> list[dict[str, Any]]:
    from pipeline.journal import rollup

    kept = "SELECT stream, rows, length(data) AS size, first, last FROM frames WHERE history"
    if list(db.execute("SELECT name FROM sqlite_schema WHERE name = 'chunks'")):  # not in databases of earlier formats
        kept += " UNION ALL SELECT stream, rows, size, first, last FROM chunks"
    totals = "stream, sum(rows), sum(size), min(first), max(last)"
    query = f"SELECT {totals} FROM ({kept}) GROUP BY stream ORDER BY stream"
    names = ("stream", "rows", "bytes", "oldest", "newest")
    return [
        dict(zip(names, (rollup.in_words(stream), *found, _instant(first), _instant(last)), strict=True))
        for stream, *found, first, last in db.execute(query)
    ]


def _delivery(db: apsw.Connection, graph: Graph) -> list[dict[str, Any]]:
    query = "SELECT sink, sum(rows), sum(length(data)), min(clock) FROM outbox GROUP BY sink ORDER BY sink"
    waiting = {sink: more for sink, *more in db.execute(query)}
    sinks = sorted({*waiting, *(name for name, sink in graph.sinks.items() if sink.buffer is not None)})
    found = []
    for sink in sinks:
        rows, size, oldest = waiting.get(sink, (0, 0, None))
        found.append({"sink": sink, "waiting": rows, "bytes": size, "oldest": oldest and _instant(oldest)})
    return found


def _dead(db: apsw.Connection, graph: Graph, problems: list[str]) -> list[dict[str, Any]]:
    from pipeline.journal import dead
    from pipeline.letters import kind

    found = [
        {"node": node, "kind": kind(graph, node), "letters": count, "bytes": size, "newest": _instant(newest)}
        for node, count, size, newest in dead.by_node(db)
    ]
    # Who sent a reading that was refused has been told so; of the others nobody else knows.
    problems += [
        f"{letter['letters']} dead letters of {letter['node']}: `headwater dead --node {letter['node']}` "
        "shows them; once the cause is mended, `headwater dead replay` takes them up again"
        for letter in found
        if letter["kind"] != "refused"
    ]
    return found


def _journal(report: dict[str, Any], db: apsw.Connection, folder: Path, now: float) -> None:
    from pipeline.journal import state
    from pipeline.journal.schema import DATABASE

    entries = state.entries(db)
    ((frames,),) = db.execute("SELECT coalesce(sum(length(data)), 0) FROM frames WHERE journal AND NOT history")
    ((size,),) = db.execute("SELECT coalesce(sum(length(entry)), 0) FROM steps")
    ((checkpoint,),) = db.execute("SELECT coalesce(max(step), 0) FROM checkpoint")
    written = max(f.stat().st_mtime for f in folder.glob(f"{DATABASE}*") if "damaged" not in f.name and f.is_file())
    clocks = [entry.clock for _, entry in entries]
    report["step"] = entries[-1][0] if entries else checkpoint
    report["last_step"] = _instant(entries[-1][1].clock) if entries else None
    report["last_write"] = _instant(int(written) * 10**9)
    report["checkpoint"] = {"step": checkpoint, "age_seconds": round(now - clocks[0] / 1e9) if clocks else 0}
    report["journal"] = {"steps": len(entries), "bytes": size + frames}
    if clocks and max(clocks) / 1e9 > now + JUMP_S:
        report["problems"].append(
            f"the journal's newest clock is {_instant(max(clocks))}, later than now ({_instant(int(now) * 10**9)}): "
            "the clock was set back, or is not set; look at this machine's time (NTP, battery of its clock)"
        )
    if len(entries) > LONG_JOURNAL:
        report["problems"].append(
            f"the journal has {len(entries)} steps: no checkpoint is made; the log of the pipeline says why"
        )


# --- room ------------------------------------------------------------------------------------------------------------


def _space(report: dict[str, Any], config: Config, graph: Graph, folder: Path) -> None:
    """What is free, against what the pipeline file lets the database grow to."""
    from pipeline.journal.dead import BYTES

    if config.pipeline.durability == "none":
        return
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    limits = [kept for sink in graph.sinks.values() for kept in sink.kept]
    sizes = [kept.size for kept in limits if kept.size]
    bounded = {s for kept in limits if kept.size for s in kept.streams} >= {s for kept in limits for s in kept.streams}
    buffers = [sink.buffer.size for sink in graph.sinks.values() if sink.buffer is not None]
    allowed = sum(sizes) + sum(buffers) + BYTES + WAL_BYTES
    report["space"] = {"free": free, "allowed": allowed, "bounded": bounded}
    missing = allowed - report.get("bytes", 0) - free
    if missing > 0:
        report["problems"].append(
            f"{_size(free)} are free and the file allows the database to grow to {_size(allowed)}: "
            f"{_size(missing)} are missing; make room, or lower max_size or buffer"
        )
    elif free < FREE_BYTES:
        report["problems"].append(f"only {_size(free)} are free on this file system: make room")


# --- for people ------------------------------------------------------------------------------------------------------


def _text(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['folder']}: {'in use by a running pipeline' if report['running'] else 'nobody holds it'}"]
    if "note" in report:
        lines.append(f"  {report['note']}")
    if "journal" in report:
        lines += _of_database(report)
    if "space" in report:
        space = report["space"]
        bound = "" if space["bounded"] else ", and a history without max_size beside"
        lines.append(f"  space       {_size(space['free'])} free; the file allows {_size(space['allowed'])}{bound}")
    lines += ["", "Needs a person:"] if report["problems"] else ["", "All is well."]
    return lines + [f"- {problem}" for problem in report["problems"]]


def _of_database(report: dict[str, Any]) -> list[str]:
    journal, checkpoint = report["journal"], report["checkpoint"]
    when = report["last_step"] or f"before the last checkpoint; written {report['last_write']}"
    lines = [
        f"  database    format {report['format']['found']}, {_size(report['bytes'])}, quick_check ok",
        f"  last step   {report['step']}, {when}",
        f"  journal     {journal['steps']} steps, {_size(journal['bytes'])}",
        f"  checkpoint  step {checkpoint['step']}, at most {checkpoint['age_seconds']} s of journal after it",
    ]
    for h in report["history"]:
        shown = f"{h['rows']:,} rows, {_size(h['bytes'])}, {h['oldest']} to {h['newest']}"
        lines.append(f"  history     {h['stream']}: {shown}")
    for d in report["delivery"]:
        since = f", the oldest since {d['oldest']}" if d["oldest"] else ""
        lines.append(f"  outbox      {d['sink']}: {d['waiting']:,} rows wait, {_size(d['bytes'])}{since}")
    for d in report["dead"]:
        what = d["kind"] or "of a node that is gone"
        lines.append(f"  dead        {d['node']}: {d['letters']:,} {what}, {_size(d['bytes'])}, newest {d['newest']}")
    return lines


def _instant(time_ns: int) -> str:
    """To the millisecond: nobody reads more."""
    from pipeline.frame import instant_text

    return instant_text(time_ns // 1_000_000 * 1_000_000)


def _size(count: int) -> str:
    for unit, per in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= per:
            return f"{count / per:.1f} {unit}"
    return f"{count} B"
