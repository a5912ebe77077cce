"""Time that passes while sources say nothing: when they count as idle, and what their watermarks run on to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.frame import BEGUN, NEVER

if TYPE_CHECKING:
    from collections.abc import Collection

    from pipeline.clock import Clock
    from pipeline.intake import Intake

PAUSE_NS = 2_500_000_000  # a heartbeat later than this: the process was stopped, and nobody listened meanwhile


class Silence:
    """Of the sources of a pipeline. Times are ns of the monotonic clock, watermarks ns of event time."""

    def __init__(self, intakes: Collection[Intake], clock: Clock, idle: int, disorder: int) -> None:
        self.intakes = intakes
        self.clock = clock
        self.idle = idle
        self.disorder = disorder
        self.now = clock.monotonic()
        self.beating = False  # time is being looked at: a long gap means that the process was stopped

    def look(self) -> None:
        """A process that was stopped heard nothing meanwhile: its sources fall idle anew from now on."""
        before, self.now = self.now, self.clock.monotonic()
        if self.beating and self.now - before > PAUSE_NS:
            self.was_stopped()

    def was_stopped(self) -> None:
        """Nobody listened until now."""
        self.now = self.clock.monotonic()
        for intake in self.intakes:
            intake.listen(self.now)

    def idle_for(self, intake: Intake) -> int | None:
        """ns of silence of a live source, once it counts as idle."""
        if not intake.source.live or intake.ended or len(intake.inbox):
            return None
        silence = self.now - intake.heard
        return silence if silence >= self.idle else None

    def runs_to(self, intake: Intake) -> int:
        """The watermark of a source now: of an idle one it runs on from the newest reading at the clock's pace."""
        silence = self.idle_for(intake)
        if silence is None:
            return intake.watermark
        return max(intake.watermark, intake.runs_to(silence, self.disorder))

    def reaches(self, due: int) -> bool:
        """Time alone brings a watermark to `due`, or ends a source's turn to hold others back."""
        if any(not i.quiet and self.idle_for(i) is not None for i in self.intakes):
            return True
        return any(i.watermark < due <= self.runs_to(i) for i in self.intakes)

    def until(self, intake: Intake, due: int) -> int | None:
        """ns until a live source's silence could bring its watermark to `due`, or makes it idle."""
        if not intake.source.live or intake.ended:
            return None
        silence = self.now - intake.heard
        if not intake.quiet:
            return int(max(self.idle - silence, 0))
        if intake.watermark >= due or (intake.newest == NEVER and due > BEGUN):
            return None
        return int(max(due - intake.runs_to(silence, self.disorder), 0))
