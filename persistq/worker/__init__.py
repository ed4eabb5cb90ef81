"""The one loop that performs work, whatever the source it claims from."""

from .executors import Threads
from .jobs import JobSource
from .loop import Loop
from .source import Source, Turn

__all__ = ["JobSource", "Loop", "Source", "Threads", "Turn"]
