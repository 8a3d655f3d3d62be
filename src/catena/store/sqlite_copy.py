"""A copy of a SQLite database of one moment, whoever writes meanwhile (SQLite's online backup API)."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from catena.store.errors import DatabaseDamaged, DatabaseGone, DatabaseMissing

PAGES = 2048
"""Pages that are copied without letting a writer between."""


def copy(source: Path, target: Path, progress: Callable[[int], None]) -> None:
    """Make ``target``, its owner's alone; ``progress`` takes how many bytes more are copied.

    Raises ``DatabaseMissing``, ``DatabaseGone``.
    """
    if not source.is_file():
        raise DatabaseMissing("there is no database file at this path")
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as live:
            (page,) = live.execute("PRAGMA page_size").fetchone()
            with closing(sqlite3.connect(target)) as made:
                live.backup(
                    made,
                    pages=PAGES,
                    progress=lambda _, remaining, total: progress(
                        page * min(PAGES, total - remaining)
                    ),
                )
        make_whole(target)
    except sqlite3.Error as error:
        raise DatabaseGone("the database cannot be copied", got=type(error).__name__) from error


def make_whole(path: Path) -> None:
    """Put everything into the one file. Nobody may have it open."""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode=DELETE")


def require_sound(path: Path) -> None:
    """Let SQLite look at every page and foreign key. Raises ``DatabaseDamaged``."""
    try:
        with closing(sqlite3.connect(path)) as file:
            found = file.execute("PRAGMA integrity_check(1)").fetchall()
            strays = file.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        raise DatabaseDamaged("not a database", got=type(error).__name__) from error
    if found != [("ok",)] or strays:
        raise DatabaseDamaged("the database contradicts itself", got=f"{len(strays)} stray rows")
