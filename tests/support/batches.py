"""What tests of batches share: making them, looking at the folder, spoiling files."""

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from persistq.batch import BatchReader, BatchWriter


def fill(root: Path, items: Iterable[Any], queue: str = "q", **options: Any) -> None:
    """Write items into batches and close the writer."""
    with BatchWriter(root, queue, **options) as writer:
        for item in items:
            assert writer.add(item) is True


def drain(root: Path, queue: str = "q", **options: Any) -> list[Any]:
    """Return every item that is ready."""
    with BatchReader(root, queue, **options) as reader:
        return list(reader)


def names(root: Path, word: str = "", queue: str = "q") -> list[str]:
    """Return the names of the files that begin with a word, in their order."""
    folder = root / queue
    return sorted(name for name in os.listdir(folder) if name.startswith(word)) if folder.exists() else []


def only(root: Path, word: str = "", queue: str = "q") -> Path:
    """Return the path of the one file that begins with the word."""
    (name,) = names(root, word, queue)
    return root / queue / name


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return what a person with a sqlite3 shell sees in a batch."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in found}
    connection.close()
    return rows
