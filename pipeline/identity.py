"""Which pipeline a process runs: a command finds it by the address in a file, and another one may have that.

A command says in a header which file and which state folder it means, by their places on the disk, which are the same in a
container; the name counts where neither can be seen. What is changed in a file, its name included, is no reason to refuse.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from pipeline.config import Config

HEADER = "Headwater-Pipeline"
_UNSEEN = "-"


def identity(config: Config) -> str:
    """What the header says."""
    return f"{_place(config.path)} {_place(config.pipeline.state)} {quote(config.pipeline.name)}"


def _place(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return _UNSEEN
    return f"{found.st_dev:x}:{found.st_ino:x}"


def is_meant(said: str, config: Config) -> bool:
    """Is it this pipeline that a command means?"""
    theirs, own = said.split(" "), identity(config).split(" ")
    if len(theirs) != len(own):
        return False
    seen = [(a, b) for a, b in zip(theirs[:2], own[:2], strict=True) if _UNSEEN not in (a, b)]
    return any(a == b for a, b in seen) if seen else theirs[2] == own[2]


def refusal(config: Config) -> str:
    """What another pipeline answers; to anyone, so it tells no more than /health."""
    return (
        f'here runs another pipeline, "{config.pipeline.name}": of two on one machine each needs a port of its own '
        "([server] listen)"
    )
