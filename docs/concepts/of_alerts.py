"""The pictures of alerts.md."""

from __future__ import annotations

from typing import Any

from docs.concepts.picture import WIDTH, Scale, Sheet
from docs.concepts.story import S, Story


def rules(story: Story, streams: list[str], title: str, marks: list[float], field: str = "temperature") -> Sheet:
    """A line of what was measured, and below it a lane for each alert: what it is, and its rows."""
    sheet = Sheet(WIDTH, 226 + 46 * len(streams), title)
    readings = story.rows(next(iter(story.steps)))
    end = story.block.end / S / 60
    values = [row[field] for row in readings]
    x, y = Scale(0, end, 110, WIDTH - 24), Scale(min([*values, *marks]) - 0.5, max([*values, *marks]) + 0.5, 176, 20)
    for mark in marks:
        sheet.line("muted axis dash", x.start, y(mark), x.end, y(mark))
        sheet.text("muted", x.start - 8, y(mark) + 4, f"{mark:g}", "end")
    sheet.text("text strong", 14, 30, field)
    sheet.path("main", [(x(row["time"] / 60), y(row[field])) for row in readings])
    for row in readings:
        sheet.dot("f-main", x(row["time"] / 60), y(row[field]), 3)
    for minute in range(0, int(end) + 1, 2):
        sheet.line("axis", x(minute), 184, x(minute), 189)
        sheet.text("muted", x(minute), 202, f"{minute} min", "middle")
    for number, stream in enumerate(streams):
        _lane(sheet, story, stream, x, 226 + 46 * number)
    return sheet


def _lane(sheet: Sheet, story: Story, stream: str, x: Scale, top: float) -> None:
    """A bar while it fires, lighter while it waits; a flag for each row that is told."""
    sheet.text("text strong", 14, top + 15, stream)
    sheet.box("band", x.start, top, x.end, top + 22)
    rows = [{**row, "time": row["time"] / 60, "since": row["since"] / 60} for row in story.rows(stream)]
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        until = after["time"] if after else x.high
        if row["state"] == "firing":
            if row["previous"] is None and row["since"] < row["time"]:
                sheet.box("p-good", x(row["since"]), top, x(row["time"]), top + 22, 0)
            sheet.box("p-bad" if row["level"] == "critical" else "p-warn", x(row["time"]), top, x(until), top + 22, 0)
        kind = "good" if row["state"] == "cleared" else "bad" if row["level"] == "critical" else "warn"
        sheet.flag(f"f-{kind}", x(row["time"]), top + 3)
        if row["state"] == "firing" and row["previous"] != row["level"] and x(until) - x(row["time"]) > 50:
            sheet.text("text", x(row["time"]) + 7, top + 15, row["level"])


def life(rows: list[dict[str, Any]]) -> Sheet:
    """The states of an alert. An arrow with a row is drawn if such a row came in one of the runs."""
    sheet = Sheet(WIDTH, 250, "The life of an alert")
    left, middle, right, y = 90, 380, 670, 130
    seen = {_change(row) for row in rows}
    for x, name, kind in ((left, "ok", "band"), (middle, "waiting", "p-good"), (right, "firing", "p-warn")):
        sheet.box(f"{kind} axis", x - 55, y - 24, x + 55, y + 24, 12)
        sheet.text("text strong", x, y + 4, name, "middle")
    sheet.arrow("axis", left + 55, y - 8, middle - 57, y - 8)
    sheet.text("muted", (left + middle) / 2, y - 16, "the condition begins to hold", "middle")
    sheet.arrow("axis dash", middle - 55, y + 8, left + 57, y + 8)
    sheet.text("muted", (left + middle) / 2, y + 24, "it is over: nobody was told", "middle")
    if "waited" in seen:
        sheet.arrow("warn", middle + 55, y, right - 57, y)
        sheet.text("f-warn strong", (middle + right) / 2, y - 8, "held for so long, or no", "middle")
        sheet.text("f-warn strong", (middle + right) / 2, y + 18, "longer held back: firing", "middle")
    if "fired" in seen:
        sheet.curve("warn", f"M{left} {y - 24} C{left} 20 {right} 20 {right} {y - 26}")
        sheet.text("f-warn strong", middle, 34, "with nothing to wait for: firing", "middle")
    if "cleared" in seen:
        sheet.curve("good", f"M{right} {y + 24} C{right} 240 {left} 240 {left} {y + 26}")
        sheet.text("f-good strong", middle, 232, "clear holds, and keep is over: cleared", "middle")
    if {"level", "reminder"} <= seen:
        sheet.curve(
            "warn", f"M{right + 24} {y - 24} C{right + 50} {y - 90} {right + 85} {y - 50} {right + 57} {y - 12}"
        )
        sheet.text("f-warn strong", WIDTH - 12, 46, "another level,", "end")
        sheet.text("f-warn strong", WIDTH - 12, 60, "a reminder: firing", "end")
    return sheet


def _change(row: dict[str, Any]) -> str:
    if row["state"] == "cleared":
        return "cleared"
    if row["previous"] is not None:
        return "reminder" if row["previous"] == row["level"] else "level"
    return "waited" if row["since"] < row["time"] else "fired"
