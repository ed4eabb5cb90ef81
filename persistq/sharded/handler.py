"""Handler: the class that performs sharded requests, and the registry that knows it by its key."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

from .. import codec
from ..errors import ConfigError, PayloadError
from .options import settings
from .ports import PLACES

MAX_THREAD_CHARS = 128
_new = tuple.__new__
_registry: dict[str, type["Handler"]] = {}


class _Route(NamedTuple):
    thread: int | str
    priority: int


class Route(_Route):
    """Where a request goes: its thread, and its priority within the thread.

    Without arguments it is QUEUE_DEFAULT_THREAD and QUEUE_DEFAULT_PRIORITY, as they are now.
    """

    __slots__ = ()

    def __new__(cls, thread: int | str | None = None, priority: int | None = None) -> Self:
        """Return a route; what is not given is as the settings are now."""
        if thread is None:
            thread = settings.default_thread
        if priority is None:
            priority = settings.default_priority
        return _new(cls, (thread, priority))


def tube_name(handler: str, thread: int | str) -> str:
    """Return the name of a handler's thread in storage."""
    return f"{handler}/{thread}"


@dataclass(frozen=True, slots=True)
class Tube:
    """One handler's one thread, by the handler's key: what a worker performs in order, and alone."""

    handler: str
    thread: int | str

    def __str__(self) -> str:
        return tube_name(self.handler, self.thread)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the tube of a name such as ``NotifyHandler/7``.

        Raises:
            ConfigError: it is none.
        """
        handler, slash, thread = name.partition("/")
        if not slash or not thread:
            raise ConfigError(f"a tube is named handler/thread, not {name!r:.80}")
        codec.check_name("handler", handler)
        digits = thread.removeprefix("-")
        plain = digits.isascii() and digits.isdigit() and str(int(thread[:20])) == thread
        return cls(handler, int(thread) if plain else check_thread(thread))


class Handler:
    """Performs requests: subclass it and write ``perform``, sync or async.

    Its key, by which requests name it in storage, is the class's name, or ``key=`` of the class
    statement: ``class Notify(Handler, key="notify")``. So a class may be renamed or moved, and nothing
    that is read from storage is ever imported.

    One object serves one tube at a time: ``create``, ``start``, ``handle`` again and again, ``stop``. A
    request may be handled more than once, for the worker may die before it has removed it.
    """

    #: The key of the class, which it need not set itself.
    key: ClassVar[str] = ""
    #: Priorities in the order in which a thread's requests are to be taken; others come after, higher first.
    priorities: ClassVar[Sequence[int] | None] = None
    #: Most requests handled at once; None is QUEUE_WORKER_BATCH_SIZE.
    batch_size: ClassVar[int | None] = None

    def __init_subclass__(cls, *, key: str | None = None, **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.key = codec.check_name("handler", key or cls.__name__)
        known = _registry.get(cls.key)
        if known and _origin(known) != _origin(cls):
            raise ConfigError(f"two classes are called handler {cls.key!r}; give one of them key=")
        _registry[cls.key] = cls

    @classmethod
    async def create(cls) -> Self:
        """Return a new handler; override it to hand it what it needs."""
        return cls()

    @classmethod
    def request_cls(cls) -> Any:
        """Return the class of the requests: what ``*requests`` are annotated with; ``Any`` is any JSON value."""
        for name in ("perform", "handle", "route"):
            found = _annotation(getattr(cls, name))
            if found is not Any:
                return found
        return Any

    @classmethod
    async def route(cls, *requests: Any) -> list[Route]:
        """Return a route for each request: all of them the default one, unless this is overridden."""
        return [Route()] * len(requests)

    @classmethod
    def weight(cls, thread: int | str) -> float:  # noqa: ARG003
        """Return how large a share of the workers' time the thread gets while others wait; 1 is the usual."""
        return 1.0

    async def start(self) -> None:
        """Prepare; called when a worker has bound a tube."""

    async def perform(self, *requests: Any) -> None:
        """Do what the requests ask for. Whatever it raises, they come again."""
        raise NotImplementedError

    async def handle(self, *requests: Any) -> None:
        """Process a batch; what the worker calls, and what calls ``perform``."""
        await call(self.perform, *requests)

    async def stop(self) -> None:
        """Tidy up; called when the tube is empty, another one's turn has come, or the worker ends."""

    @classmethod
    def place(cls, priority: int) -> int:
        """Return where a priority stands in a tube; lower comes first."""
        declared = cls.priorities
        if declared is not None and priority in declared:
            return list(declared).index(priority)
        return PLACES - priority

    @classmethod
    def priority_at(cls, place: int) -> int:
        """Return the priority that stands at a place."""
        if cls.priorities is not None and place < len(cls.priorities):
            return cls.priorities[place]
        return PLACES - place

    @classmethod
    def check(cls) -> None:
        """Return when requests can be handled at all.

        Raises:
            ConfigError: neither ``perform`` nor ``handle`` is written.
        """
        if cls.perform is Handler.perform and cls.handle is Handler.handle:
            raise ConfigError(f"handler {cls.key!r} has neither perform nor handle; write one of them")


async def call(function: Any, *arguments: Any) -> Any:
    """Call a function of the user's: a coroutine function is awaited, any other runs in a thread meanwhile."""
    from asyncio import to_thread

    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    found = await to_thread(function, *arguments)
    return await found if inspect.isawaitable(found) else found


def find(key: str) -> type[Handler] | None:
    """Return the handler of a key, if this process has one."""
    return _registry.get(key)


def handlers() -> list[str]:
    """Return the keys of the handlers that this process has."""
    return sorted(_registry)


def check_thread(thread: object) -> int | str:
    """Return the thread when it can be part of a tube's name.

    Raises:
        ConfigError: it is neither a whole number of 64 bits nor a text of 1 to 128 characters.
    """
    if isinstance(thread, int) and not isinstance(thread, bool) and abs(thread) <= codec.LARGEST_ID:
        return thread
    if isinstance(thread, str) and thread and len(thread) <= MAX_THREAD_CHARS:
        try:
            return codec.check_text("a thread", thread, 4 * MAX_THREAD_CHARS)
        except PayloadError as error:
            raise ConfigError(str(error)) from None
    raise ConfigError(f"a thread is a whole number or a text of 1 to {MAX_THREAD_CHARS} characters, not {thread!r:.80}")


def _annotation(function: Any) -> Any:
    parameters = inspect.signature(function).parameters.values()
    name = next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), None)
    try:
        hints = get_type_hints(function)
    except NameError as error:
        raise ConfigError(f"the requests of {function.__qualname__} cannot be checked: {error}") from error
    return hints.get(name or "", Any)


def _origin(cls: type) -> tuple[Path, str]:
    # By file, not by module: python -m myapp.handlers runs one as __main__ and may import it again by its name.
    try:
        source = inspect.getsourcefile(cls) or ""
    except (TypeError, OSError):
        source = cls.__module__
    return Path(source).resolve(), cls.__qualname__
