"""State lasts: a database that any earlier version wrote is opened, brought to today's format, and gone on with.

`formats/N/` holds what a pipeline left behind that was killed: 75 readings, windows and alerts, a checkpoint in the middle,
a batch begun and not delivered, and a dead letter. That of 3 is that of 2, later: some of its rows are in chunks.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import apsw
import pytest

from pipeline.component import RowsQuery
from pipeline.journal import dead, history, outbox
from pipeline.journal.commit import StateInUse, Store
from pipeline.journal.schema import FORMAT, MIGRATIONS, TABLES
from pipeline.journal.state import pack
from pipeline.run import Pipeline, check

FORMATS = Path(__file__).parent / "formats"
EARLIER = sorted(MIGRATIONS)
# The key of the batch that was begun in each.
_SECOND = "cd6a2a58-1ae7-49c9-ac31-b6f0c1ce6b56"
BATCHES = {1: "0dc44db3-f22f-4dd9-860b-7b06bd8a8dc4", 2: _SECOND, 3: _SECOND}


def folder_of(number: int, tmp_path: Path) -> Path:
    shutil.copytree(FORMATS / str(number), tmp_path / "device")
    (tmp_path / "device" / "state").mkdir()
    (tmp_path / "device" / "headwater.db").rename(tmp_path / "device" / "state" / "headwater.db")
    return tmp_path / "device"


def tables(db: apsw.Connection) -> dict[str, object]:
    names = [
        n for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    ]
    return {name: sorted(column[1:] for column in db.execute(f"PRAGMA table_xinfo({name})")) for name in names}


def test_there_is_a_database_of_each_earlier_format() -> None:
    assert list(range(1, FORMAT)) == EARLIER
    assert [int(folder.name) for folder in sorted(FORMATS.iterdir())] == EARLIER


@pytest.mark.parametrize("number", EARLIER)
def test_it_gets_the_tables_of_a_new_one(number: int, tmp_path: Path) -> None:
    store = Store(folder_of(number, tmp_path) / "state", "process")
    new = apsw.Connection(":memory:")
    new.execute(TABLES)
    assert tables(store.connection) == tables(new)
    assert store.connection.pragma("user_version") == FORMAT
    assert store.connection.pragma("integrity_check") == "ok"
    store.close()


@pytest.mark.parametrize("number", EARLIER)
async def test_the_pipeline_goes_on_where_it_was(number: int, tmp_path: Path) -> None:
    device = folder_of(number, tmp_path)
    config, graph = check(device / "pipeline.toml")
    pipeline = Pipeline(config, graph)
    pipeline.on_start = lambda started: started.stop()
    await pipeline.run()
    assert pipeline.engine is not None
    assert pipeline.engine.next_seq == 75
    assert pipeline.engine.intakes["readings"].watermark == 74_000_000_000
    assert len(pipeline.engine.intakes["readings"].inbox.requests.answers) == 75
    store = Store(device / "state", "process")
    with store.connection as db:
        kept = history.rows(db, RowsQuery("readings", limit=1000), graph.streams["readings"], None)
        assert kept["value"].tolist() == [i * 2.5 for i in range(40)] + [(i * 13) % 100 for i in range(40, 75)]
        begun = outbox.unfinished(db, "cloud")
        assert begun is not None
        assert (begun.key, len(outbox.load(db, "cloud", begun))) == (BATCHES[number], 3)
        assert outbox.status(db, "cloud").rows > 3
        assert [letter.node for letter in dead.letters(db, 10)] == ["readings"]
    store.close()


async def test_alerts_of_a_checkpoint_that_kept_one_row_of_each_key(tmp_path: Path) -> None:
    device = folder_of(EARLIER[-1], tmp_path)
    for _ in range(2):
        pipeline = Pipeline(*check(device / "pipeline.toml"))
        pipeline.on_start = lambda started: started.stop()
        await pipeline.run()
        assert pipeline.engine is not None
        shown = pipeline.engine.alerts["high"].frame()
        assert len(shown) > 0
        assert shown.time.tolist() == pipeline.engine.latest["high"].frame().time.tolist()
        store = Store(device / "state", "process")
        with store.connection as db:  # as it was before; no step is left in the journal
            db.execute("DELETE FROM checkpoint WHERE node = 'high.alerts'")
        store.close()


async def test_state_that_is_not_understood_is_told_and_costs_no_other(tmp_path: Path) -> None:
    """A node whose own state was changed between two versions starts anew; the pipeline starts, and the others go on."""
    device = folder_of(EARLIER[-1], tmp_path)
    store = Store(device / "state", "process")
    with store.connection as db:
        db.execute("UPDATE checkpoint SET state = ? WHERE node = 'ten_seconds'", (pack({"other": 1}),))
    store.close()
    plan: list[str] = []
    pipeline = Pipeline(*check(device / "pipeline.toml"))
    pipeline.on_plan = plan.extend
    pipeline.on_start = lambda started: started.stop()
    await pipeline.run()
    assert "ten_seconds: its state is of another version: starts anew" in plan
    assert pipeline.engine is not None
    assert pipeline.engine.next_seq == 75


def test_a_later_format_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Store(tmp_path, "process").close()
    db = apsw.Connection(str(tmp_path / "headwater.db"))
    db.pragma("user_version", FORMAT + 1)
    db.close()
    with pytest.raises(StateInUse, match=rf"later Headwater \(format {FORMAT + 1}; .*install that version"):
        Store(tmp_path, "process")
    assert apsw.Connection(str(tmp_path / "headwater.db")).pragma("user_version") == FORMAT + 1
