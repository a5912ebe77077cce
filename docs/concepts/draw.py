"""The pictures of these pages, each drawn from a run of the pipeline that stands above it: `python -m docs.concepts.draw`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs.concepts.picture import Scale, Sheet
from docs.concepts.story import S, Story, pipelines, told

HERE = Path(__file__).resolve().parent
WIDTH = 760
FILES: dict[str, dict[str, str]] = {}  # what a page's pipeline reads, by its name


def drawn() -> dict[str, str]:
    """File name -> SVG."""
    time = pipelines(HERE / "time.md")
    windows = ["tumbling", "hopping", "sliding", "session", "count"]
    timed = ["readings", "ten_seconds", "ten_seconds.late"]
    alerts = pipelines(HERE / "alerts.md")
    four = ["plain", "hysteresis", "lasting", "levels"]
    more = ["keep", "repeat", "flapping", "silent", "hot", "warm"]
    oven, calm = told(alerts["oven"], ["oven", *four]), told(alerts["calm"], ["oven", *more])
    pictures = {
        "watermark": watermark(told(time["watermark"], timed), "Readings, the watermark, and when windows leave", 38),
        "corrections": watermark(told(time["corrections"], timed), "A window that is corrected", 27),
        "windows": kinds(told(time["kinds"], ["readings", *windows]), windows),
        "rules": rules(oven, four, "One temperature and four rules", [28, 30, 33]),
        "calm": rules(calm, more, "One temperature and six rules", [30, 33]),
        "life": life([row for story, of in ((oven, four), (calm, more)) for name in of for row in story.rows(name)]),
    }
    return {f"{name}.svg": str(sheet) for name, sheet in pictures.items()}


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


def main() -> None:
    for name, text in drawn().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
