"""Every variable, its default and its meaning, read from the environment and ``.env``."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import ConfigError

ENV_FILE = ".env"
_URLS = ("queue_db_url", "queue_db_file", "queue_shards_url")


class Setting(NamedTuple):
    """One row of ``persistq config show``."""

    name: str
    value: object
    source: str


class Settings(BaseSettings):
    """The variables. A field's name in capitals is the variable's name.

    The environment wins over ``.env``, ``.env`` over the defaults; an empty value means the default.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    queue_db_file: str = Field("queue.db", description="SQLite file that holds the queue")
    queue_db_url: str | None = Field(None, description="SQLAlchemy URL of the database; wins over QUEUE_DB_FILE")
    max_attempts: int = Field(3, ge=1, description="deliveries of a job before it waits for a person")
    timeout_seconds: float = Field(60, gt=0, description="seconds a consumer's lease lasts; renewed at a third of it")
    interval_time: float = Field(5, ge=0, description="seconds between two jobs of the producer; 0 is at once")

    queue_durability: Literal["power", "process"] = Field(
        "power", description="what an acknowledged job survives: power loss, or only the death of processes"
    )
    queue_busy_seconds: float = Field(5, ge=0, description="seconds a call waits for a locked database")
    queue_statement_seconds: float = Field(
        30, gt=0, description="seconds a PostgreSQL or MariaDB server may take for one statement"
    )
    queue_job_dir: str = Field("jobs", description="folder of the job files")
    queue_spool_dir: str = Field("spool", description="folder of the batch files, one folder in it for each queue")
    queue_batch_items: int = Field(10_000, ge=1, le=8_388_607, description="batches: items until one is full")
    queue_batch_seconds: float = Field(1, gt=0, description="batches: age at which one is handed over as it is")
    queue_batch_ready: int = Field(100, ge=0, description="batches: most that stand ready; 0 is no bound")
    queue_batch_compression: Literal["none", "zstd"] = Field(
        "none", description="batches: zstd takes about a third of the disk and more of the processor"
    )
    queue_max_pending: int = Field(0, ge=0, description="most pending jobs before enqueue is refused; 0 is no bound")
    queue_max_item_bytes: int = Field(262_144, ge=1, description="longest item or result in bytes")
    queue_retention_seconds: float = Field(
        604_800, ge=0, description="seconds a done job is kept before maintenance purges it; 0 is for ever"
    )

    queue_name: str | None = Field(
        None, description="stable name of this consumer; else supervisord's, else 'consumer'"
    )
    queue_app: str | None = Field(None, description="modules with tasks, separated by commas")
    queue_task: str = Field("stamp_file", description="task that performs an item that names none")
    queue_concurrency: int = Field(1, ge=1, le=1000, description="jobs that one consumer performs at once")
    queue_prefetch: int = Field(
        500,
        ge=0,
        le=1000,
        description="jobs a consumer may claim ahead of its free threads if they are quick; 0 is none",
    )
    queue_grace_seconds: float = Field(30, ge=0, description="seconds a stopping consumer lets its jobs finish")
    queue_poll_seconds: float = Field(1, gt=0, description="longest idle wait of a consumer")
    queue_recovery_seconds: float = Field(5, gt=0, description="seconds between two searches for expired leases")
    queue_backoff_seconds: float = Field(1, ge=0, description="back-off after the first error, doubled each time")
    queue_backoff_max_seconds: float = Field(600, ge=0, description="longest back-off")

    queue_log_format: Literal["text", "json"] = Field(
        "text", description="lines of consumers, producer, maintenance and watchdog: text, or one JSON object each"
    )

    queue_coordinator_delay: float = Field(1, ge=0, description="shards: seconds before looking again for a free tube")
    queue_coordinator_lease: float = Field(
        30, gt=0, description="shards: seconds a worker's lock on a tube lasts; renewed at a third of it"
    )
    queue_coordinator_prefix: str = Field("lock_", max_length=48, description="shards: prefix of a lock's key")
    queue_coordinator_timeout: float = Field(86_400, gt=0, description="shards: hard cap on holding one tube, seconds")
    queue_default_priority: int = Field(0, description="shards: priority of a route that names none")
    queue_default_thread: int = Field(0, description="shards: thread of a route that names none")
    queue_shards_url: str | None = Field(
        None, description="shards: redis:// URL of the requests; else they are in the queue's database"
    )
    queue_tube_prefix: str = Field("tube_", max_length=48, description="shards: prefix of a tube's key")
    queue_worker_batch_size: int = Field(128, ge=1, description="shards: requests handled at once")
    queue_worker_empty_limit: int = Field(16, ge=1, description="shards: empty looks before a tube is left")
    queue_worker_empty_pause: float = Field(0.1, ge=0, description="shards: seconds between two empty looks")

    queue_ops_user: str = Field("ops", pattern="^[^:]+$", description="dashboard: user that the password is for")
    queue_ops_password: SecretStr | None = Field(
        None, description="dashboard: password; without one it serves this machine only, for looking only"
    )
    queue_ops_write: bool | None = Field(
        None, description="dashboard: 1 allows changes, 0 refuses them; by default they need a password or a proxy"
    )
    queue_ops_proxy_header: str | None = Field(
        None, pattern="^[A-Za-z0-9-]+$", description="dashboard: header in which a trusted proxy names the user"
    )
    queue_ops_hosts: str | None = Field(
        None, description="dashboard: host names it answers to besides localhost, separated by commas"
    )
    queue_ops_environment: str | None = Field(
        None, max_length=40, description="dashboard: badge that tells installations apart, such as production"
    )
    queue_ops_hide_items: bool = Field(False, description="dashboard: 1 shows no items and no results")

    @classmethod
    def load(cls, env_file: str | Path | None = ENV_FILE, **overrides: Any) -> Self:
        """Read the variables now.

        Raises:
            ConfigError: a value is not usable; the message names the variable, never its value.
        """
        try:
            return cls(_env_file=env_file, **overrides)
        except ValidationError as error:
            raise ConfigError("; ".join(_complaint(detail) for detail in error.errors())) from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{env_file} cannot be read ({type(error).__name__}); save it as UTF-8 text") from None

    @property
    def database(self) -> str:
        """Where the queue lives: QUEUE_DB_URL, else the path QUEUE_DB_FILE."""
        return self.queue_db_url or self.queue_db_file

    @property
    def apps(self) -> list[str]:
        """QUEUE_APP as a list of module names."""
        return [name.strip() for name in (self.queue_app or "").split(",") if name.strip()]

    def sources(self, env_file: str | Path | None = ENV_FILE) -> list[Setting]:
        """Return each variable with its value, secrets masked, and where the value comes from."""
        environment = {key.upper() for key, value in os.environ.items() if value}
        in_file = {key.upper() for key, value in _read(env_file).items() if value}
        return [
            Setting(
                name.upper(),
                _shown(name, value),
                "environment"
                if name.upper() in environment
                else str(env_file)
                if name.upper() in in_file
                else "default",
            )
            for name, value in self
        ]

    @classmethod
    def unknown(cls, env_file: str | Path | None = ENV_FILE) -> list[str]:
        """Return the names that begin with ``QUEUE_`` but mean nothing here: most likely misspelt."""
        known = {name.upper() for name in cls.model_fields}
        names = {key.upper() for key in (*os.environ, *_read(env_file))}
        return sorted(name for name in names - known if name.startswith("QUEUE_"))

    @classmethod
    def example(cls) -> str:
        """Return the text of ``.env.example``."""
        lines = ["# Copy to .env and change what you need; a line that stays commented has the value shown.", ""]
        for name, field in cls.model_fields.items():
            value = "" if field.default is None else field.default
            lines += [f"# {field.description}", f"#{name.upper()}={value}", ""]
        return "\n".join(lines)


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    return mask_url(value) if name in _URLS and value else value


def mask_url(url: str) -> str:
    """Return a URL without its password and query, fit to be shown; a path is returned as it is."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    # A password may hold anything but @, even a ? that would begin the query elsewhere.
    found = re.fullmatch(r"([^:@/?]*)(?::[^@]*)?@([^@?]*)(\?.*)?", rest, re.DOTALL)
    if found:
        return f"{scheme}://{found[1]}:***@{found[2]}" + ("?***" if found[3] else "")
    place, query, _ = rest.partition("?")
    return f"{scheme}://{'***' if '@' in place else place}" + ("?***" if query else "")


def _read(env_file: str | Path | None) -> Mapping[str, str | None]:
    return dotenv_values(env_file) if env_file else {}


def _complaint(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"]).upper()
    return f"{name}: {detail['msg'][0].lower()}{detail['msg'][1:]}"
