"""Names of batch files: ``<status>_<created>_<id>.db``, with the owner behind the id while one is at work on it.

Behind the id, ``+2@1500`` says that two consumers in a row have died, the last of them at item number 1,500.
"""

import re
import secrets
from enum import StrEnum
from typing import NamedTuple


class BatchStatus(StrEnum):
    """What the first word of a file's name says of a batch."""

    LOADING = "loading"
    READY = "ready"
    UNLOAD = "unload"
    #: Quarantined: something in it is not as it was written.
    INVALID = "invalid"


SIDECARS = ("-journal", "-wal", "-shm")
"""What SQLite puts beside a file. While one of them is there, the file is not to be renamed."""

LATEST = 10**19 - 1
"""Where the stamp's 19 digits end."""

_OWN = re.compile(
    r"(loading|ready|unload|invalid)_(\d{19})_([0-9a-f-]{8,36}(?:\.\d+)?)"
    r"(?:\+(\d{1,9})@(\d{1,7}))?(?:_([A-Za-z0-9.-]{1,64}))?\.db",
    re.ASCII,
)
# What turbo-queue wrote in its several versions: seconds, a uuid, and the owner before, behind or after it all.
_OLD = re.compile(
    r"(load|loading|ready|avail|unload|chosen|assigned|invalid_file)_(?:(\d{1,9})_)?(\d{9,12})_([0-9a-f-]{8,36})"
    r"(?:_recovered)?(?:\.db)(?:_(\d{1,9}))?(?:_temp_hold)?",
    re.ASCII,
)
_OLD_WORDS = {
    "load": "loading", "avail": "ready", "chosen": "unload", "assigned": "unload", "invalid_file": "invalid",
}  # fmt: skip
_STRANGE = re.compile(r"[^A-Za-z0-9.-]+")


class BatchName(NamedTuple):
    """A file's name, taken apart. Sorted by ``(created, id)`` batches are in the order of their creation."""

    created: int
    """Nanoseconds since 1970."""
    id: str
    status: BatchStatus
    #: Who unloads it, or did; only for eyes.
    owner: str | None
    #: The name as it stands in the folder.
    text: str
    #: How many consumers in a row have died with it in hand, counted for the item number ``at``.
    deaths: int = 0
    at: int = 0

    @classmethod
    def new(cls, created: int) -> "BatchName":
        """Return the name of a batch that nobody has made yet."""
        return _made(created, secrets.token_hex(8), BatchStatus.LOADING)

    @classmethod
    def parse(cls, text: str) -> "BatchName | None":
        """Return what the name says, old vocabularies included, or None when it is none of a batch."""
        if own := _OWN.fullmatch(text):
            return cls(int(own[2]), own[3], BatchStatus(own[1]), own[6], text, int(own[4] or 0), int(own[5] or 0))
        if old := _OLD.fullmatch(text):
            word = _OLD_WORDS.get(old[1], old[1])
            status = BatchStatus.UNLOAD if text.endswith("_temp_hold") else BatchStatus(word)
            return cls(int(old[3]) * 10**9, old[4], status, old[2] or old[5], text)
        return None

    def become(self, status: BatchStatus, owner: object = None, deaths: int = 0, at: int = 0) -> "BatchName":
        """Return the name that the same batch has in another status; deaths are forgotten if they are not given."""
        return _made(self.created, self.id, status, owner, deaths, at)

    def after_death(self, at: int) -> "BatchName":
        """Return the name that the batch has, ready again, when its consumer has died at an item.

        The first death may be the work of any item of the block. From then on items are handed out one by one, so the
        next one was the work of this item, which was in the block as well.
        """
        deaths = 1 if not self.deaths else self.deaths + 1 if at == self.at else 2
        return self.become(BatchStatus.READY, deaths=deaths, at=at)

    def numbered(self, number: int) -> "BatchName":
        """Return another name of the same status for when this one is taken."""
        return _made(self.created, f"{self.id.partition('.')[0]}.{number}", self.status)


def _made(
    created: int, identity: str, status: BatchStatus, owner: object = None, deaths: int = 0, at: int = 0
) -> BatchName:
    shown = None if owner is None else (_STRANGE.sub("-", str(owner))[:64] or "-")
    counted = f"+{deaths}@{at}" if deaths else ""
    text = f"{status}_{created:019d}_{identity}{counted}{'' if shown is None else '_' + shown}.db"
    return BatchName(created, identity, status, shown, text, deaths, at)
