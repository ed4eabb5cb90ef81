"""Memory that is used again and again: fresh pages of the kernel cost a batch more than all else."""

MOST = 8 << 20
"""Bytes that one such memory grows to."""


class Memory:
    """Room for bytes that are soon done with. It grows to what was wanted of it, and not beyond ``MOST``."""

    def __init__(self) -> None:
        self._room = bytearray()
        self._used = 0

    def take(self, length: int) -> memoryview:
        """Return so much of it, for bytes to be read into; whatever was there before is gone."""
        if length > MOST:
            return memoryview(bytearray(length))
        if length > len(self._room):
            self._room = bytearray(length)
        return memoryview(self._room)[:length]

    def keep(self, data: bytes) -> bytes | memoryview:
        """Return a copy behind those that were made since ``clear``, or the bytes if there is no room yet."""
        start, self._used = self._used, self._used + len(data)
        if self._used > len(self._room):
            return data
        copy = memoryview(self._room)[start : self._used]
        copy[:] = data
        return copy

    def clear(self) -> None:
        """Take back all that ``keep`` has returned."""
        if self._used > len(self._room):
            self._room = bytearray(min(MOST, self._used + self._used // 8))
        self._used = 0
