"""The pictures of time.md."""

from __future__ import annotations

from typing import Any

from docs.concepts.picture import WIDTH, Scale, Sheet
from docs.concepts.story import Story


def watermark(story: Story, title: str, until: float) -> Sheet:
    """Across: the clock. Up: event time, with the windows as bands."""
    sheet = Sheet(WIDTH, 400, title)
    x, y = Scale(0, until, 60, WIDTH - 24), Scale(0, 31, 350, 48)
    _bands(sheet, y, x.start, x.end)
    for second in range(0, int(until) + 1, 5):
        sheet.text("muted", x(second), 368, f"{second} s", "middle")
    sheet.text("muted", x.end, 388, "when it arrives", "end")
    sheet.text("muted", 12, 28, "event time")
    _run_of_watermark(sheet, story, x, y)
    late = {row["time"] for row in story.rows("ten_seconds.late")}
    for row in story.rows("readings"):
        kind = "f-bad" if row["time"] in late else "f-main"
        sheet.dot(kind, x(row["clock"]), y(row["time"]))
        if kind == "f-bad":
            sheet.text("text", x(row["clock"]) + 7, y(row["time"]) + 4, f"{row['time']:g}, late")
        else:
            sheet.text("text", x(row["clock"]) - 7, y(row["time"]) + 4, f"{row['time']:g}", "end")
    for row in story.rows("ten_seconds"):
        at, top = x(row["clock"]), y(row["end"])
        sheet.line("good dash", at, y(row["start"]), at, top)
        sheet.flag("f-good", at, top + 9)
        again = f", revision {row['revision']}" if row["revision"] else ""
        sheet.text("f-good strong", at + 8, top + 14, f"n = {row['n']}{again}")
    _legend(sheet, x.start + 30)
    return sheet


def _bands(sheet: Sheet, y: Scale, left: float, right: float) -> None:
    for start in (0, 10, 20):
        sheet.box("band", left, y(start + 10) + 1.5, right, y(start) - 1.5)
        sheet.text("muted", left + 8, y(start + 10) + 16, f"window {start} to {start + 10} s")
    for mark in (0, 10, 20, 30):
        sheet.text("muted", left - 8, y(mark) + 4, f"{mark} s", "end")


def _run_of_watermark(sheet: Sheet, story: Story, x: Scale, y: Scale) -> None:
    """A step wherever it moved; a slope where it ran on by the clock."""
    points: list[tuple[float, float]] = []
    for step in story.steps["readings"]:
        if points and not step.quiet:
            points.append((x(step.clock), points[-1][1]))
        points.append((x(min(step.clock, x.high)), y(min(max(step.watermark, y.low), y.high))))
    sheet.path("warn", points)


def _legend(sheet: Sheet, at: float) -> None:
    sheet.dot("f-main", at + 90, 24)
    sheet.text("text", at + 100, 28, "a reading")
    sheet.line("warn line", at + 185, 24, at + 209, 24)
    sheet.text("text", at + 215, 28, "the watermark")
    sheet.flag("f-good", at + 330, 29)
    sheet.text("text", at + 341, 28, "a window's row leaves")


def kinds(story: Story, windows: list[str]) -> Sheet:
    """Across: event time. A lane for each kind, a bar for each row."""
    lanes = {kind: _lanes(story.rows(kind)) for kind in windows}
    height = 70 + sum(30 + 20 * len(rows) for rows in lanes.values())
    sheet = Sheet(WIDTH, height, "The same readings in windows of each kind")
    x = Scale(-10, 40, 90, WIDTH - 20)
    top = 52.0
    for second in range(-10, 41, 10):
        sheet.line("grid", x(second), 34, x(second), height - 12)
        sheet.text("muted", x(second), 26, f"{second} s", "middle")
    readings = story.rows("readings")
    sheet.text("text strong", 14, top - 1, "readings")
    for row in readings:
        sheet.line("main dash", x(row["time"]), 52, x(row["time"]), height - 12)
        sheet.dot("f-main", x(row["time"]), 48)
    for kind, rows in lanes.items():
        middle = top + 30 + 10 * len(rows)
        sheet.text("text strong", 14, middle + 2, kind)
        for level, bars in enumerate(rows):
            at = top + 24 + 20 * level
            for row in bars:
                sheet.box("p-main half", x(row["start"]) + 1, at, x(row["end"]) - 1, at + 16)
                sheet.text("text", (x(row["start"]) + x(row["end"])) / 2, at + 12, str(row["n"]), "middle")
        top += 30 + 20 * len(rows)
    return sheet


def _lanes(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Bars that overlap go below each other."""
    lanes: list[list[dict[str, Any]]] = []
    for row in sorted(rows, key=lambda row: (row["start"], row["end"])):
        free = next((lane for lane in lanes if lane[-1]["end"] <= row["start"]), None)
        if free is None:
            lanes.append(free := [])
        free.append(row)
    return lanes
