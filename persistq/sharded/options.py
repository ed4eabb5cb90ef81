"""ShardSettings: the variables that shards go by, changeable in code at any time."""

from typing import Any

from ..settings import Settings

_NAMES = {
    "max_attempts": "max_attempts",
    "backoff": "queue_backoff_seconds",
    "backoff_max": "queue_backoff_max_seconds",
    "max_item_bytes": "queue_max_item_bytes",
    **{
        name: f"queue_{name}"
        for name in (
            "coordinator_delay", "coordinator_lease", "coordinator_prefix", "coordinator_timeout", "default_priority",
            "default_thread", "tube_prefix", "worker_batch_size", "worker_empty_limit", "worker_empty_pause",
        )
    },
}  # fmt: skip
"""What each is called here, and in Settings."""


class ShardSettings:
    """The settings of shards: ``settings.coordinator_delay = 5`` holds from the next time it is asked for.

    They begin as the environment and ``.env`` have them when one is first read. What each means stands
    in ``.env.example``, as ``QUEUE_`` and its name in capitals.

    Raises:
        ConfigError: a value is not usable.
    """

    coordinator_delay: float
    coordinator_lease: float
    coordinator_prefix: str
    coordinator_timeout: float
    default_priority: int
    default_thread: int
    tube_prefix: str
    worker_batch_size: int
    worker_empty_limit: int
    worker_empty_pause: float
    #: Shared with jobs: deliveries of a request before it becomes a job that waits for a person.
    max_attempts: int
    #: Shared with jobs: seconds of back-off after the first error, doubled each time, and their bound.
    backoff: float
    backoff_max: float
    #: Shared with jobs: the longest request in bytes.
    max_item_bytes: int

    _all: Settings | None

    def __init__(self, settings: Settings | None = None) -> None:
        self._take(settings)

    def __getattr__(self, name: str) -> Any:
        # Called for what is not there yet; afterwards each is an attribute like any other, and as quick.
        if name not in _NAMES:
            raise AttributeError(f"there is no setting {name!r} of shards")
        self._take(Settings.load())
        return self.__dict__[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _NAMES:
            raise AttributeError(f"there is no setting {name!r} of shards")
        now = self._all or Settings.load()
        self._take(Settings.load(None, **{**now.model_dump(), _NAMES[name]: value}))

    def reload(self) -> None:
        """Forget every change, and read the environment again at the next use."""
        self._take(None)

    def _take(self, settings: Settings | None) -> None:
        found = {} if settings is None else {name: getattr(settings, theirs) for name, theirs in _NAMES.items()}
        self.__dict__.clear()
        self.__dict__.update(found, _all=settings)


settings = ShardSettings()
"""Those of this process."""
