"""Names of batch files: ``<status>_<created>_<id>.db``, with the owner behind the id while one is at work on it."""

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
    r"(loading|ready|unload|invalid)_(\d{19})_([0-9a-f-]{8,36}(?:\.\d+)?)(?:_([A-Za-z0-9.-]{1,64}))?\.db", re.ASCII
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

    @classmethod
    def new(cls, created: int) -> "BatchName":
        """Return the name of a batch that nobody has made yet."""
        return _made(created, secrets.token_hex(8), BatchStatus.LOADING)

    @classmethod
    def parse(cls, text: str) -> "BatchName | None":
        """Return what the name says, old vocabularies included, or None when it is none of a batch."""
        if own := _OWN.fullmatch(text):
            return cls(int(own[2]), own[3], BatchStatus(own[1]), own[4], text)
        if old := _OLD.fullmatch(text):
            word = _OLD_WORDS.get(old[1], old[1])
            status = BatchStatus.UNLOAD if text.endswith("_temp_hold") else BatchStatus(word)
            return cls(int(old[3]) * 10**9, old[4], status, old[2] or old[5], text)
        return None

    def become(self, status: BatchStatus, owner: object = None) -> "BatchName":
        """Return the name that the same batch has in another status."""
        return _made(self.created, self.id, status, owner)

    def numbered(self, number: int) -> "BatchName":
        """Return another name of the same status for when this one is taken."""
        return _made(self.created, f"{self.id.partition('.')[0]}.{number}", self.status)


def _made(created: int, identity: str, status: BatchStatus, owner: object = None) -> BatchName:
    shown = None if owner is None else (_STRANGE.sub("-", str(owner))[:64] or "-")
    text = f"{status}_{created:019d}_{identity}{'' if shown is None else '_' + shown}.db"
    return BatchName(created, identity, status, shown, text)
