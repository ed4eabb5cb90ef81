"""Fixtures: yards, and a disk that is soon full."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.databases import Databases, OnServer

from .yard import Yard


@pytest.fixture
def make_yard(tmp_path: Path, kind: str, every_database: Databases) -> Iterator[Callable[..., Yard]]:
    """Make yards with settings of their own; at the end their processes are gone."""
    yards: list[Yard] = []

    def make(**settings: Any) -> Yard:
        if kind != "sqlite" and "target" not in settings:
            database = every_database[kind]
            assert isinstance(database, OnServer)
            settings |= {"target": database.apart(), "server": database.server}
        yards.append(Yard(tmp_path, **settings))
        return yards[-1]

    yield make
    for yard in yards:
        yard.clean_up()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
