"""The @task registry: the allow-list of what a row may run."""

import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PydanticUserError, ValidationError, create_model

from . import codec
from .clock import Seconds
from .errors import ConfigError, PayloadError
from .model import Job, NewJob
from .retry import Retry

if TYPE_CHECKING:
    from .aio import AsyncPersistentQ
    from .interface import PersistentQInterface

P = ParamSpec("P")
R = TypeVar("R")


class Cancellation:
    """How a running handler is told to stop: a flag it may look at, and for a coroutine a real cancel."""

    __slots__ = ("_stop", "requested")

    def __init__(self) -> None:
        self.requested = False
        self._stop: Callable[[], object] | None = None

    def request(self) -> None:
        """Tell the handler."""
        self.requested = True
        if self._stop:
            self._stop()

    def stops_by(self, stop: Callable[[], object]) -> None:
        """Say what stops the handler, at once if that was requested already."""
        self._stop = stop
        if self.requested:
            stop()


_current: ContextVar[tuple[Job, Cancellation] | None] = ContextVar("persistq_job", default=None)
_registry: dict[str, "Task[..., Any]"] = {}


@dataclass(frozen=True)
class Task(Generic[P, R]):
    """A function that jobs may name. It is still called like the function it wraps."""

    name: str
    function: Callable[P, R]
    #: Enqueue options that a job of this task has unless told otherwise.
    defaults: NewJob
    _arguments: type[BaseModel] = field(repr=False)
    #: What to do after an error; None is the settings' back-off, whatever the error.
    retry: Retry | None = None

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function here and now, without a queue."""
        return self.function(*args, **kwargs)

    def options(self, **changes: Any) -> "Task[P, R]":
        """Return the same task with other enqueue options: ``send.options(priority=9).enqueue(q, ...)``."""
        return replace(self, defaults=self.defaults.evolve(**changes))

    def job(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """Return the job for this call, for ``enqueue_many``.

        Raises:
            PayloadError: the arguments do not fit the function's signature and annotations.
        """
        try:
            bound = inspect.signature(self.function).bind(*args, **kwargs)
            checked = self._arguments.model_validate(bound.arguments)
            return self.defaults.evolve(item=codec.dumps(checked.model_dump(mode="json", by_alias=True)))
        except (TypeError, ValueError) as error:
            raise PayloadError(f"arguments of task {self.name!r}: {error}") from None

    @overload
    def enqueue(self, q: "PersistentQInterface", /, *args: P.args, **kwargs: P.kwargs) -> int: ...
    @overload
    def enqueue(self, q: "AsyncPersistentQ", /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[int]: ...
    def enqueue(self, q: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Enqueue a call of this task and return the job's id; on a queue of ``persistq.aio`` this is awaited.

        Raises:
            PayloadError: the arguments do not fit the function's signature and annotations.
        """
        ids = q.enqueue_many([self.job(*args, **kwargs)])
        return ids[0] if isinstance(ids, list) else _first(ids)

    def call(self, job: Job) -> R:
        """Call the function with what the job carries.

        Raises:
            PayloadError: the item does not fit the function's signature any more.
        """
        if job.task is None:
            return self.function(job.item)  # type: ignore[call-arg,arg-type]
        try:
            arguments = self._arguments.model_validate(codec.loads(job.item))
        except ValidationError as error:
            raise PayloadError(f"arguments of task {self.name!r}: {error}") from None
        return self.function(**{name: getattr(arguments, field) for field, name in self._names})  # type: ignore[call-arg]

    @cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        """The model's fields, each with the argument that it stands for."""
        return [(field, str(made.alias)) for field, made in self._arguments.model_fields.items()]


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
) -> Callable[[Callable[P, R]], Task[P, R]]: ...
def task(
    function: Callable[P, R] | None = None,
    *,
    name: str | None = None,
    queue: str = "default",
    priority: int = 0,
    max_attempts: int | None = None,
    timeout: Seconds | None = None,
    retry: Retry | None = None,
) -> Any:
    """Register a function, sync or async, as what jobs may run: ``@task`` or ``@task(queue="mail")``.

    Its name in the database is the function's own unless ``name`` is given. ``queue`` to ``timeout``
    are how its jobs are enqueued; ``retry`` is asked by the consumer whenever one has failed.

    Raises:
        ConfigError: another function has the name, or the signature cannot be checked.
    """
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigError(f"retry= takes a persistq.Retry, not {type(retry).__name__}")

    def register(function: Callable[P, R]) -> Task[P, R]:
        given = codec.check_name("task", name or function.__name__)
        codec.check_name("queue", queue)
        known = _registry.get(given)
        if known and _origin(known.function) != _origin(function):
            raise ConfigError(f"two functions are called task {given!r}; give one of them name=")
        defaults = NewJob(
            item="{}", task=given, queue=queue, priority=priority, max_attempts=max_attempts, timeout=timeout
        )
        try:
            arguments = _model(given, function)
        except (NameError, TypeError, PydanticUserError) as error:
            raise ConfigError(f"the arguments of task {given!r} cannot be checked: {error}") from error
        _registry[given] = made = Task(given, function, defaults, arguments, retry)
        return made

    return register if function is None else register(function)


def find(name: str) -> Task[..., Any]:
    """Return the registered task.

    Raises:
        LookupError: this process registers no such task.
    """
    try:
        return _registry[name]
    except KeyError:
        raise LookupError(f"this consumer has no task {name!r}; start it with --app and the task's module") from None


def names() -> list[str]:
    """Return the names of the registered tasks."""
    return sorted(_registry)


def load(module: str) -> None:
    """Import a module of the operator's choosing, so that its tasks register themselves.

    Raises:
        ConfigError: it cannot be imported.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # whatever a module does wrong, a restart would not mend it
        raise ConfigError(f"module {module!r} cannot be imported, {type(error).__name__}: {error}") from error


def current_job() -> Job | None:
    """Return the job that is being performed here, or None outside a handler."""
    running = _current.get()
    return running[0] if running else None


def cancelled() -> bool:
    """Return whether the running job was cancelled or its lease is lost, so that a long handler may stop."""
    running = _current.get()
    return running is not None and running[1].requested


class Performing:
    """Makes ``job`` the current one for a ``with`` block. A class, for a generator costs more than many a handler."""

    __slots__ = ("_running", "_token")

    def __init__(self, job: Job, cancellation: Cancellation) -> None:
        self._running = (job, cancellation)

    def __enter__(self) -> None:
        self._token: Token[Any] = _current.set(self._running)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


async def _first(ids: Awaitable[list[int]]) -> int:
    return (await ids)[0]


def _origin(function: Callable[..., Any]) -> tuple[Path, str]:
    # By file, not by module: python -m myapp.jobs runs one as __main__ and may import it again by its name.
    return Path(inspect.getsourcefile(function) or "").resolve(), function.__qualname__


def _model(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """Return the pydantic model of a function's arguments."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(f"task {name!r}: arguments need names of their own, so no *args, **kwargs or '/'")
        default = ... if parameter.default is parameter.empty else parameter.default
        # The argument's name is an alias, for a field may not be called as a model's own methods are.
        fields[f"a{number}"] = (hints.get(parameter.name, Any), Field(default, alias=parameter.name))
    extra: Literal["forbid"] = "forbid"
    return create_model(f"{name}_arguments", __config__=ConfigDict(extra=extra, protected_namespaces=()), **fields)
