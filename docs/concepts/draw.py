"""The pictures of these pages, drawn from runs of the pipelines that stand in them: `python -m docs.concepts.draw`."""

from __future__ import annotations

from pathlib import Path

from docs.concepts.of_alerts import life, rules
from docs.concepts.of_durability import commit, readings, week
from docs.concepts.of_time import kinds, watermark
from docs.concepts.story import pipelines, told

HERE = Path(__file__).resolve().parent
FILES = {"week": {"week.ndjson": readings()}}  # what a page's pipeline reads, by its name


def drawn() -> dict[str, str]:
    """File name -> SVG."""
    time = pipelines(HERE / "time.md")
    windows = ["tumbling", "hopping", "sliding", "session", "count"]
    timed = ["readings", "ten_seconds", "ten_seconds.late"]
    alerts = pipelines(HERE / "alerts.md")
    four = ["plain", "hysteresis", "lasting", "levels"]
    more = ["keep", "repeat", "flapping", "silent", "hot", "warm"]
    oven, calm = told(alerts["oven"], ["oven", *four]), told(alerts["calm"], ["oven", *more])
    outage = pipelines(HERE / "durability.md")["week"]
    pictures = {
        "commit": commit(),
        "week": week(told(outage, ["readings", "hot"], FILES["week"], sink="cloud")),
        "watermark": watermark(told(time["watermark"], timed), "Readings, the watermark, and when windows leave", 38),
        "corrections": watermark(told(time["corrections"], timed), "A window that is corrected", 27),
        "windows": kinds(told(time["kinds"], ["readings", *windows]), windows),
        "rules": rules(oven, four, "One temperature and four rules", [28, 30, 33]),
        "calm": rules(calm, more, "One temperature and six rules", [30, 33]),
        "life": life([row for story, of in ((oven, four), (calm, more)) for name in of for row in story.rows(name)]),
    }
    return {f"{name}.svg": str(sheet) for name, sheet in pictures.items()}


def main() -> None:
    for name, text in drawn().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
