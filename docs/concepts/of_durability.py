"""The pictures of durability.md."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from math import pi, sin

from docs.concepts.picture import WIDTH, Scale, Sheet
from docs.concepts.story import S, Story

DAY_S = 86_400


def readings() -> str:
    """Nine days of an oven, a reading every ten minutes; three of the days are hot."""
    lines = []
    for minute in range(0, 9 * 24 * 60, 10):
        day = minute / (24 * 60)
        temperature = 24 + 5 * sin(2 * pi * (day - 0.35)) + 2 * sin(2 * pi * day / 4.3)
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)
        lines.append(json.dumps({"id": "a", "t": f"{time:%Y-%m-%dT%H:%M:%SZ}", "temperature": round(temperature, 2)}))
    return "\n".join(lines) + "\n"


def week(story: Story) -> Sheet:
    """Above: what the device has. Below: what the cloud has; a thinned row as a bar from its least to its greatest."""
    sheet = Sheet(WIDTH, 420, "A week without a network")
    x = Scale(0, 9, 70, WIDTH - 24)
    off, on = (int(step.at) / S / DAY_S for step in story.block.steps)
    for top, name in ((52, "the device"), (222, "the cloud")):
        y = Scale(16, 32, top + 140, top)
        sheet.box("band", x(off), top, x(on), top + 140, 0)
        sheet.text("text strong", x.start, top - 8, name)
        for mark in (20, 30):
            sheet.line("axis dash", x.start, y(mark), x.end, y(mark))
            sheet.text("muted", x.start - 8, y(mark) + 4, f"{mark} °C", "end")
        if name == "the device":
            sheet.path("main", [(x(row["time"] / DAY_S), y(row["temperature"])) for row in story.rows("readings")])
            alerts = story.rows("hot")
            sheet.text("muted", x((off + on) / 2), top + 134, "no network", "middle")
        else:
            _arrived(sheet, story, x, y)
            alerts = [row for row in story.arrived if row["stream"] == "hot"]
        for row in alerts:
            sheet.flag("f-bad" if row["state"] == "firing" else "f-good", x(row["time"] / DAY_S), y(31))
    for day in range(10):
        sheet.text("muted", x(day), 382, f"day {day}", "middle")
    _legend(sheet, story)
    return sheet


def _arrived(sheet: Sheet, story: Story, x: Scale, y: Scale) -> None:
    for row in story.arrived:
        if row["stream"] != "readings":
            continue
        if row.get("thinned"):
            left, right = x(row["time"] / DAY_S), x(row["until"] / DAY_S)
            middle, least, most = (y(row[f"temperature{part}"]) for part in ("", "_min", "_max"))
            sheet.box("f-warn", left, min(most, middle - 1), max(right, left + 1.5), max(least, middle + 1), 0)
        else:
            sheet.dot("f-main", x(row["time"] / DAY_S), y(row["temperature"]), 0.9)


def _legend(sheet: Sheet, story: Story) -> None:
    rows = [row for row in story.arrived if row["stream"] == "readings"]
    thinned = [row for row in rows if row.get("thinned")]
    stand_for = sum(row["thinned"] for row in thinned)
    sheet.box("f-warn", 72, 402, 84, 407, 0)
    sheet.text("text", 90, 409, f"{len(thinned)} thinned rows, of {stand_for} readings")
    sheet.dot("f-main", 310, 405, 2)
    sheet.text("text", 318, 409, f"{len(rows) - len(thinned)} readings as they were")
    sheet.flag("f-bad", 510, 410)
    sheet.text("text", 520, 409, "an alert fires")
    sheet.flag("f-good", 630, 410)
    sheet.text("text", 640, 409, "it is over")


def commit() -> Sheet:
    """The way of a reading to its answer. This one is drawn by hand."""
    sheet = Sheet(WIDTH, 300, "The way of a reading, and four moments to be killed at")
    for left, right, top, bottom, name, kind in (
        (20, 100, 76, 124, "sender", "band"),
        (150, 230, 76, 124, "inbox", "p-main"),
        (280, 370, 76, 124, "step", "p-main"),
        (424, 590, 32, 168, "one transaction", "p-good"),
        (660, 740, 76, 124, "cloud", "band"),
    ):
        sheet.box(f"{kind} axis", left, top, right, bottom, 8)
        sheet.text("text strong", (left + right) / 2, 54 if bottom > 150 else 104, name, "middle")
    for number, line in enumerate(("the journal: what came", "the history", "the outbox", "lengths of files")):
        sheet.text("text", 440, 82 + 22 * number, line)
    sheet.text("muted", 190, 142, "waits", "middle")
    sheet.text("muted", 325, 142, "windows, alerts", "middle")
    sheet.box("band", 150, 12, 600, 186, 10)
    sheet.parts.insert(0, sheet.parts.pop())  # the device, behind the rest
    sheet.text("muted", 160, 30, "the device")
    for x1, x2 in ((100, 148), (230, 278), (370, 422)):
        sheet.arrow("axis", x1, 100, x2, 100)
    sheet.arrow("axis", 590, 100, 658, 100)
    sheet.curve("good", "M510 168 L510 224 L60 224 L60 127")
    sheet.text("f-good strong", 285, 244, "the answer: 201, PUBACK, the place in a file", "middle")
    sheet.text("muted", 625, 142, "deliveries", "middle")
    for number, (x, y) in enumerate(((255, 100), (424, 150), (510, 200), (618, 100)), 1):
        sheet.dot("f-bad", x, y, 9)
        sheet.text("ground-text strong", x, y + 4, str(number), "middle")
    sheet.dot("f-bad", 30, 278, 7)
    sheet.text("text", 44, 282, "killed here: see the table")
    return sheet
