"""Redis drivers: requests and leases on a Redis or Valkey server, each verb one atomic script."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ..errors import ConfigError, DatabaseUnavailable, LeaseLost, OutcomeUnknown
from ..events import span
from . import redis_scripts as scripts
from .options import ShardSettings
from .ports import Coordinator, Entry, Lease, LeaseInfo, Message, Storage, TubeInfo, digest_of

_PAGES_MOST = 1 << 31


class _Server:
    """A client of ``redis.asyncio``, whether it gives bytes or text, and the scripts that it runs."""

    def __init__(self, client: Any) -> None:
        if not hasattr(client, "execute_command") or not hasattr(client, "aclose"):
            raise ConfigError(f"a client of redis.asyncio is needed, not a {type(client).__name__}")
        self.client = client
        self._checked = False

    async def run(self, script: str, *arguments: Any, adds: bool = False) -> Any:
        """Return what the script returns, text as bytes.

        Raises:
            DatabaseUnavailable: the server is out of reach, or refuses.
            OutcomeUnknown: the connection broke while it may have been adding.
            ConfigError: the server may forget what it was given.
        """
        from redis import exceptions

        try:
            if not self._checked:
                await self._check()
            with span("shards.redis"):
                return await self._evaluate(script, arguments)
        except (exceptions.AuthenticationError, exceptions.NoPermissionError) as error:
            raise ConfigError(f"the Redis server refuses: {error}") from error
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            if adds and "connecting to" not in str(error):
                raise OutcomeUnknown(str(error)) from error
            raise DatabaseUnavailable(str(error)) from error
        except exceptions.ResponseError as error:
            if str(error).partition(" ")[0] in _REFUSALS:
                raise DatabaseUnavailable(str(error)) from error
            raise

    async def _evaluate(self, script: str, arguments: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        digest = _digests.get(script) or _digests.setdefault(script, hashlib.sha1(script.encode()).hexdigest())  # noqa: S324 - it is the server\'s name of the script
        try:
            return await self.client.execute_command("EVALSHA", digest, 0, *arguments, NEVER_DECODE=True)
        except NoScriptError:
            return await self.client.execute_command("EVAL", script, 0, *arguments, NEVER_DECODE=True)

    async def _check(self) -> None:
        policy = (await self.client.info("memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise ConfigError(
                f"this Redis server evicts keys when its memory is full (maxmemory-policy {policy}), and requests with "
                "them; set it to noeviction"
            )
        self._checked = True


_digests: dict[str, str] = {}
_REFUSALS = ("OOM", "READONLY", "LOADING", "MISCONF", "BUSY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN")


class RedisStorage(Storage):
    """Requests on a server; what survives its crash is as its own ``appendfsync`` has it."""

    backend = "redis"

    def __init__(self, client: Any, *, settings: ShardSettings | None = None) -> None:
        super().__init__(settings)
        self._server = _Server(client)

    async def extend(self, entries: Sequence[Entry]) -> int:
        """Add the requests and return how many were not left out."""
        prefix = self.settings.tube_prefix
        heads: list[list[Any]] = []
        payloads: list[bytes] = []
        for entry in entries:
            if not entry.payloads:
                continue
            keyed = entry.is_keyed
            heads.append([
                entry.tube, entry.place, _micros(entry.first_after) if entry.waits else -1,
                0 if entry.every is None else max(1, _micros(entry.every)), entry.unique,
                [digest_of(prefix + entry.tube, payload) for payload in entry.payloads] if keyed else [],
                [len(payload) for payload in entry.payloads],
            ])  # fmt: skip
            payloads += entry.payloads
        if not heads:
            return 0
        told = json.dumps(heads, ensure_ascii=False, separators=(",", ":"))
        # The client repeats a call whose reply was lost; by this the script knows it again.
        operation = secrets.token_hex(12)
        whole = b"".join(payloads)
        return int(await self._server.run(scripts.EXTEND, prefix, operation, told, len(payloads), whole, adds=True))

    async def length(self, tube: object) -> int:
        """Return how many requests are ready in the tube."""
        return int(await self._run(scripts.LENGTH, str(tube)))

    async def peek(self, tube: object, limit: int) -> list[Message]:
        """Return the first requests that are ready."""
        return _messages(await self._run(scripts.PEEK, str(tube), max(0, limit)))

    async def exchange(self, tube: object, ids: Sequence[int], lease: Lease, limit: int) -> tuple[int, list[Message]]:
        """Remove and peek in one step."""
        numbers = ",".join(map(str, map(int, ids)))
        found = await self._run(scripts.EXCHANGE, str(tube), lease.name, lease.token, max(0, limit), numbers)
        if found == -1:
            raise LeaseLost(f"tube {tube}")
        removed, left = found
        return int(removed), _messages(left)

    async def tubes(self, limit: int | None = None) -> list[str]:
        """Return the tubes in which requests are ready."""
        last = _PAGES_MOST if limit is None else limit - 1
        if last < 0:
            return []
        return _names(await self._run(_TUBES, last))

    async def mature(self) -> float | None:
        """Move what is due to the end of its tube."""
        while (micros := await self._run(scripts.MATURE)) is not None and int(micros) == 0:
            continue
        return None if micros is None else int(micros) / 1_000_000

    async def look(self, limit: int) -> tuple[list[str], float | None]:
        """Move what is due and return the tubes, in one step."""
        micros, found = await self._run(scripts.LOOK, limit - 1)
        if micros is not None and int(micros) == 0:
            return await super().look(limit)
        return _names(found), None if micros is None else int(micros) / 1_000_000

    async def withdraw(self, tube: object, *payloads: bytes) -> int:
        """Forget the deferred and recurring requests that say the same."""
        digests = {digest_of(f"{self.settings.tube_prefix}{tube}", payload) for payload in payloads}
        return int(await self._run(scripts.WITHDRAW, *digests)) if digests else 0

    async def overview(self, limit: int = 1000) -> list[TubeInfo]:
        """Return what waits in which tube."""
        found = json.loads((await self._run(scripts.OVERVIEW)).decode(errors="replace")) or []
        rows = (TubeInfo(tube, ready, later, _time(since)) for tube, ready, later, since in found)
        return sorted(rows)[:limit]

    async def close(self) -> None:
        """Leave the client open: it is the caller's."""

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._server.run(script, self.settings.tube_prefix, *arguments)


class RedisCoordinator(Coordinator):
    """Leases on a server. Its clock is the one that judges them."""

    backend = "redis"

    def __init__(self, client: Any, *, settings: ShardSettings | None = None) -> None:
        super().__init__(settings)
        self._server = _Server(client)

    async def bind_first(self, tubes: Sequence[str]) -> Lease | None:
        """Return a lease of the first of these tubes that is free."""
        seconds = min(self.settings.coordinator_lease, self.settings.coordinator_timeout)
        token = self._token()
        found = await self._run(scripts.BIND, token, _micros(seconds), *tubes)
        if not found:
            return None
        tube = found[0].decode()
        return Lease(tube, self._name(tube), token, int(found[1]), seconds, int(found[2]) == 1)

    async def renew(self, lease: Lease) -> None:
        """Make the lease last from now on."""
        cap = _micros(self.settings.coordinator_timeout)
        match await self._run(scripts.RENEW, lease.tube, lease.token, _micros(lease.seconds), cap):
            case -1:
                raise LeaseLost(f"tube {lease.tube}")
            case -2:
                raise LeaseLost(f"tube {lease.tube} was held for QUEUE_COORDINATOR_TIMEOUT")

    async def unbind(self, lease: Lease, *, tries: int = 0, pause: float = 0.0) -> None:
        """Give the tube back."""
        await self._run(scripts.UNBIND, lease.tube, lease.token, tries, _micros(pause))

    async def release(self, tube: object) -> bool:
        """Take the tube from whoever holds it."""
        return bool(await self._run(scripts.RELEASE, str(tube)))

    async def leases(self, limit: int = 1000) -> list[LeaseInfo]:
        """Return the leases that there are."""
        found = json.loads((await self._run(scripts.LEASES)).decode(errors="replace")) or []
        return [
            LeaseInfo(tube, owner, tries, _time_of(int(bound)), _time_of(int(until)))
            for tube, owner, tries, bound, until in sorted(found)[:limit]
        ]

    async def close(self) -> None:
        """Leave the client open: it is the caller's."""

    async def _run(self, script: str, *arguments: Any) -> Any:
        return await self._server.run(script, self.settings.coordinator_prefix, *arguments)


_message = partial(tuple.__new__, Message)
_TUBES = "return redis.call('ZRANGE', ARGV[1] .. 'turns', 0, ARGV[2])"


def _names(tubes: Sequence[bytes]) -> list[str]:
    return [tube.decode(errors="replace") for tube in tubes]


def _messages(found: Sequence[bytes]) -> list[Message]:
    messages = []
    for place, lengths, elements in zip(found[::3], found[1::3], found[2::3], strict=True):
        standing, at = int(place), 0
        for length in map(int, lengths.split(b",")):
            number, _, payload = elements[at : at + length].split(b":", 2)
            messages.append(_message((int(number), payload, standing)))
            at += length
    return messages


def _time_of(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _time(micros: str) -> datetime | None:
    return _time_of(int(float(micros))) if micros else None


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
