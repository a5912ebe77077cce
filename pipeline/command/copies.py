"""Copies of a state folder's database, as `headwater backup` makes and `headwater restore` takes them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import apsw

from pipeline.journal.files import sync_name
from pipeline.journal.schema import FORMAT


class NoCopy(Exception):
    """A file that is no copy of what a pipeline has kept, or none that could be used here; the text says why."""


def keep(half: Path, place: Path) -> None:
    """A whole file gets its name: all of it or nothing, also at a power cut or when a stick is pulled."""
    with half.open("rb") as data:
        os.fsync(data.fileno())
    half.rename(place)
    sync_name(place)


def look_at(file: Path) -> str:
    """The name of the pipeline that was copied. NoCopy if it is none, if it is damaged, or of a later version than this one."""
    if file.is_dir():
        raise NoCopy("is a folder: name the file that headwater backup has made")
    if not file.is_file():
        raise NoCopy("there is no such file")
    try:
        db = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            return _read(db)
        finally:
            db.close()
    except apsw.Error as error:
        raise NoCopy(f"no backup of a pipeline ({error})") from None


def _read(db: apsw.Connection) -> str:
    ((found,),) = db.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise NoCopy(f"damaged: {found}")
    if (made := db.pragma("user_version")) > FORMAT:
        raise NoCopy(
            f"made by a later Headwater (format {made}; this one knows up to {FORMAT}): install that version here, too"
        )
    text = next((value for (value,) in db.execute("SELECT value FROM meta WHERE name = 'pipeline'")), "")
    return str(tomllib.loads(text).get("pipeline", {}).get("name", ""))
