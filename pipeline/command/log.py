"""The log: short lines on standard error, or one JSON object a line. Silent in normal operation.

Where standard error is systemd's journal, each line begins with its priority as sd-daemon(3) has it (`<4>`), so that
`journalctl -p warning` finds it; the time is the journal's.
"""

from __future__ import annotations

import json
import logging
import os
import sys

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def set_up(form: str, *, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    journal = in_journal()
    plain = "%(levelname)s %(message)s" if journal else "%(asctime)s %(levelname)s %(message)s"
    formatter = _Json() if form == "json" else logging.Formatter(plain)
    handler.setFormatter(_Prioritized(formatter) if journal else formatter)
    logger = logging.getLogger("headwater")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.propagate = False


def say(text: str, level: int = logging.ERROR) -> None:
    """For the person who started it: as it is, and without a time."""
    print(_prioritized(text, level) if in_journal() else text, file=sys.stderr)


def in_journal() -> bool:
    """$JOURNAL_STREAM names the very stream that is standard error; what was redirected since inherits only the name."""
    try:
        device, inode = map(int, os.environ["JOURNAL_STREAM"].split(":"))
        status = os.fstat(sys.stderr.fileno())
    except (KeyError, ValueError, OSError):
        return False
    return (status.st_dev, status.st_ino) == (device, inode)


def _prioritized(text: str, level: int) -> str:
    """Each line is an entry of its own there."""
    priority = _PRIORITIES.get(level, 6)
    return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


class _Prioritized(logging.Formatter):
    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return _prioritized(self.inner.format(record), record.levelno)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        shown = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, ensure_ascii=False)
