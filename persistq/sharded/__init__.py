"""persistq.sharded: context-sensitive requests, each thread's in order and in one place at a time.

    from persistq.sharded import Handler, Queue, Route, RuntimeCoordinator, RuntimeStorage, Worker

A handler routes its requests to threads; workers share the threads, and serve each one alone. What keeps
the requests is a pair of drivers: ``Runtime...`` in memory, ``SQLAlchemy...`` in the queue's own
database, ``Redis...`` on a Redis or Valkey server. At least once: a worker may die before it has removed
what it performed. ``docs/shards.md`` tells the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .handler import Handler, Route, Tube
    from .memory import RuntimeCoordinator, RuntimeStorage
    from .options import ShardSettings, settings
    from .ports import Coordinator, Entry, Lease, LeaseInfo, Message, Storage, TubeInfo
    from .promotion import Promoter
    from .queue import Queue
    from .redis import RedisCoordinator, RedisStorage
    from .sqlalchemy import SQLAlchemyCoordinator, SQLAlchemyStorage
    from .worker import Worker

# Each driver brings its own weight along, so only the one that is used is imported.
_WHERE = {
    "handler": ("Handler", "Route", "Tube"),
    "memory": ("RuntimeCoordinator", "RuntimeStorage"),
    "ports": ("Coordinator", "Entry", "Lease", "LeaseInfo", "Message", "Storage", "TubeInfo"),
    "promotion": ("Promoter",),
    "queue": ("Queue",),
    "redis": ("RedisCoordinator", "RedisStorage"),
    "options": ("ShardSettings", "settings"),
    "sqlalchemy": ("SQLAlchemyCoordinator", "SQLAlchemyStorage"),
    "worker": ("Worker",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}


def __getattr__(name: str) -> Any:
    try:
        module = import_module(f".{_MODULE_OF[name]}", __name__)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = globals()[name] = getattr(module, name)
    return value


__all__ = [
    "Coordinator", "Entry", "Handler", "Lease", "LeaseInfo", "Message", "Promoter", "Queue", "RedisCoordinator",
    "RedisStorage", "Route", "RuntimeCoordinator", "RuntimeStorage", "SQLAlchemyCoordinator", "SQLAlchemyStorage",
    "ShardSettings", "Storage", "Tube", "TubeInfo", "Worker", "settings",
]  # fmt: skip
