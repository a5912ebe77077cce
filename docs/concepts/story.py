"""What happened in a run of a page's pipeline: rows of each stream, and the clock and the watermark when they came."""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.trial import life
from pipeline.trial.block import Block
from pipeline.trial.compare import differences
from pipeline.trial.tests import checked

S = 1_000_000_000
# An operator behind each stream, which writes down what passes: the ordinary door for a function of one's own.
SEEN = """
import json
from pathlib import Path
from reactivex import operators as ops

def note(name, frame):
    progress = frame.progress
    told = [progress.clock, progress.watermark, len(frame), progress.quiet_before]
    with Path(__file__).with_suffix(".ndjson").open("a") as file:
        file.write(json.dumps([name, *told]) + "\\n")
"""
ONE = """
def {function}(frames):
    return frames.pipe(ops.do_action(lambda frame: note("{stream}", frame)))
"""


@dataclass
class Step:
    """All times in seconds after the start."""

    clock: float
    watermark: float  # when it had ended
    quiet: bool  # the source was silent for `idle` before it
    rows: list[dict[str, Any]]


@dataclass
class Story:
    block: Block
    steps: dict[str, list[Step]]  # by stream
    arrived: list[dict[str, Any]]  # behind the sink

    def rows(self, stream: str) -> list[dict[str, Any]]:
        """With `clock`: when it came."""
        return [{**row, "clock": step.clock} for step in self.steps[stream] for row in step.rows]


def pipelines(page: Path) -> dict[str, str]:
    """The whole ones that stand in a page, by their name."""
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    named = ((re.search(r'^\[pipeline\]\nname = "(\w+)"', text, re.MULTILINE), text) for text in blocks)
    return {found[1]: text for found, text in named if found}


def told(text: str, streams: list[str], files: dict[str, str] | None = None, sink: str | None = None) -> Story:
    """Run the pipeline's first test. It must pass. `sink`: what arrived behind it is wanted, too."""
    with tempfile.TemporaryDirectory(prefix="headwater-picture-") as name:
        folder = Path(name)
        for path, content in (files or {}).items():
            (folder / path).write_text(content)
        functions = {stream: "of_" + re.sub(r"\W", "_", stream) for stream in streams}
        code = [ONE.format(function=function, stream=stream) for stream, function in functions.items()]
        (folder / "seen.py").write_text(SEEN + "".join(code))
        watching = [
            f'[operators.{function}]\ntype = "python"\ninput = "{stream}"\nfunction = "seen.py:{function}"\n'
            for stream, function in functions.items()
        ]
        file = folder / "pipeline.toml"
        file.write_text(text + "\n" + "\n".join(watching))
        config, _, blocks = checked(file)
        block = blocks[0]
        result = life.run(config, block)
        assert not differences(result), "\n".join(differences(result))
        for node in [*streams, *([sink] if sink else [])]:
            block.expect.setdefault(node, [])
        (folder / "seen.ndjson").unlink()
        result = life.run(config, block)
        steps = _steps(folder / "seen.ndjson", result.came, block.start, streams)
        return Story(block, steps, [_after(row, block.start) for row in result.came[sink]] if sink else [])


def _steps(file: Path, came: dict[str, list[dict[str, Any]]], start: int, streams: list[str]) -> dict[str, list[Step]]:
    left = {stream: [_after(row, start) for row in came[stream]] for stream in streams}
    steps: dict[str, list[Step]] = {stream: [] for stream in streams}
    for line in file.read_text().splitlines():
        stream, clock, watermark, count, quiet = json.loads(line)
        rows, left[stream] = left[stream][:count], left[stream][count:]
        steps[stream].append(Step((clock - start) / S, (watermark - start) / S, quiet, rows))
    assert not any(left.values()), "an operator behind a stream saw less than came"
    return steps


def _after(row: dict[str, Any], start: int) -> dict[str, Any]:
    return {name: (value - start) / S if type(value).__name__ == "Instant" else value for name, value in row.items()}
