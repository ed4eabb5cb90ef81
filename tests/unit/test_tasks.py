"""@task: the allow-list of what a row may run, and the check of its arguments when it is enqueued."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from support.jobs import Queue, claim

import persistq
from persistq import ConfigError, PayloadError, Retry, task, tasks
from persistq.tasks import Cancellation, Task

KEY = UUID("12345678-1234-5678-1234-567812345678")


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class User(BaseModel):
    id: int
    born: date | None = None


class Renamed(BaseModel):
    user_id: int = Field(alias="userId")


VALUES: dict[str, tuple[Any, Any]] = {
    "int": (int, 3),
    "str": (str, "zwölf\n"),
    "float": (float, 0.1),
    "bool": (bool, False),
    "bytes": (bytes, b"text"),
    "UUID": (UUID, KEY),
    "datetime": (datetime, datetime(2024, 2, 29, 1, 2, 3, 456_789, tzinfo=UTC)),
    "date": (date, date(2024, 2, 29)),
    "timedelta": (timedelta, timedelta(days=1, microseconds=5)),
    "Decimal": (Decimal, Decimal("1.10")),
    "Path": (Path, Path("/a/b")),
    "Enum": (Colour, Colour.RED),
    "Literal": (Literal["a", "b"], "b"),
    "dataclass": (Point, Point(1)),
    "pydantic": (User, User(id=1, born=date(1990, 1, 1))),
    "pydantic with an alias": (Renamed, Renamed(userId=4)),
    "list": (list[UUID], [KEY]),
    "set": (set[int], {1, 2}),
    "tuple": (tuple[int, str], (1, "a")),
    "dict": (dict[str, Point], {"a": Point(2, 3)}),
    "optional": (UUID | None, None),
    "constrained": (Annotated[int, Field(gt=0)], 1),
    "anything": (Any, {"a": [1, None]}),
}


def one_argument(kind: Any) -> "Task[..., Any]":
    def handler(value: Any) -> Any:
        return value

    handler.__annotations__["value"] = kind
    return task(handler)


def run(made: "Task[..., Any]", q: Queue) -> Any:
    """Perform the next job as a consumer would."""
    return made.call(claim(q))


@pytest.mark.parametrize(("kind", "value"), VALUES.values(), ids=VALUES.keys())
def test_a_handler_gets_the_value_that_was_enqueued(kind: Any, value: Any, queue: Queue) -> None:
    made = one_argument(kind)
    made.enqueue(queue, value)
    got = run(made, queue)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "three"), (int, None), (UUID, "x"), (datetime, "yesterday"), (Point, {"z": 1}), (User, {}),
        (bytes, b"\xff"),
        (Annotated[int, Field(gt=0)], 0), (Literal["a"], "b"), (float, float("nan")), (Any, object()),
        (Any, {1, object()}),
        (Any, lambda: None),
    ],
    ids=lambda value: getattr(value, "__name__", "") or type(value).__name__,
)  # fmt: skip
def test_what_does_not_fit_is_refused_when_it_is_enqueued(kind: Any, value: Any, queue: Queue) -> None:
    with pytest.raises(PayloadError):
        one_argument(kind).enqueue(queue, value)
    assert queue.counts()["pending"] == 0


def send(user_id: int, subject: str = "hello", *, copies: int = 1) -> str:
    """A handler as people write them."""
    return f"{user_id} {subject} {copies}"


@pytest.mark.parametrize(
    ("args", "kwargs", "result"),
    [
        ((1,), {}, "1 hello 1"),
        ((1, "hi"), {}, "1 hi 1"),
        ((), {"user_id": 2, "copies": 3}, "2 hello 3"),
    ],
)
def test_arguments_may_be_given_as_to_the_function(args: Any, kwargs: Any, result: str, queue: Queue) -> None:
    made = task(send)
    made.enqueue(queue, *args, **kwargs)
    assert run(made, queue) == result
    assert made(*args, **kwargs) == result


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, "a", 2), {}), ((1,), {"extra": 1}), ((1,), {"user_id": 1})]
)
def test_a_call_that_python_would_refuse_is_refused(args: Any, kwargs: Any, queue: Queue) -> None:
    with pytest.raises(PayloadError, match="send"):
        task(send).enqueue(queue, *args, **kwargs)


def star(*args: int) -> None: ...
def stars(**kwargs: int) -> None: ...
def positional(a: int, /) -> None: ...
def unresolved(a: "NoSuchType") -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Opaque:
    """A type that no JSON stands for."""


def opaque(a: Opaque) -> None: ...


@pytest.mark.parametrize("function", [star, stars, positional, unresolved, opaque], ids=lambda f: f.__name__)
def test_a_signature_that_cannot_be_checked_is_refused_at_once(function: Any) -> None:
    with pytest.raises(ConfigError, match=function.__name__):
        task(function)


NAMED = [
    lambda _underscored: _underscored,
    lambda json: json, lambda schema: schema, lambda copy: copy, lambda validate: validate,
    lambda model_dump: model_dump,
    lambda model_config: model_config, lambda model_fields: model_fields, lambda self: self, lambda cls: cls,
    lambda name: name, lambda item: item, lambda q: q,
]  # fmt: skip


@pytest.mark.parametrize("function", NAMED, ids=lambda function: function.__code__.co_varnames[0])
def test_an_argument_may_have_any_name(function: Any, queue: Queue) -> None:
    made = task(name="oddly")(function)
    queue.enqueue_many([made.job(**{function.__code__.co_varnames[0]: "kept"})])
    assert run(made, queue) == "kept"


def test_the_decorator_sets_what_a_job_is_enqueued_with(queue: Queue) -> None:
    made = task(name="mail.send", queue="mail", priority=4, max_attempts=5, timeout=30)(send)
    job = queue.get_job(made.enqueue(queue, 1))
    assert (job.task, job.queue, job.priority, job.max_attempts, job.timeout) == ("mail.send", "mail", 4, 5, 30.0)


def test_a_task_keeps_its_retry_policy(queue: Queue) -> None:
    policy = Retry(base=5, give_up_on=ValueError)
    made = task(retry=policy)(send)
    assert made.retry is policy
    assert made.options(priority=9).retry is policy
    assert tasks.find("send").retry is policy
    assert task(send).retry is None


def test_what_is_no_retry_policy_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="a persistq"):
        task(retry=5)(send)  # type: ignore[arg-type]


def test_options_change_one_call_and_not_the_task(queue: Queue) -> None:
    made = task(send)
    hurried = queue.get_job(made.options(priority=9, queue="now", unique_key="k").enqueue(queue, 1))
    plain = queue.get_job(made.enqueue(queue, 1))
    assert (hurried.priority, hurried.queue, hurried.unique_key) == (9, "now", "k")
    assert (plain.priority, plain.queue, plain.unique_key) == (0, "default", None)


def test_many_calls_are_enqueued_at_once(queue: Queue) -> None:
    made = task(send)
    assert len(queue.enqueue_many([made.job(1), made.job(2), "plain"])) == 3


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b"])
def test_a_task_s_name_is_plain(name: str) -> None:
    with pytest.raises(ConfigError):
        task(name=name or " ")(send)


def test_two_functions_of_one_name_are_refused() -> None:
    task(name="same")(send)
    with pytest.raises(ConfigError, match="same"):
        task(name="same")(positional_free)


def positional_free() -> None: ...


def test_the_same_function_may_be_registered_again() -> None:
    assert task(send) is not task(send)
    assert "send" in tasks.names()


def test_modules_of_the_same_file_name_do_not_replace_each_other_s_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pq_alpha", "pq_beta"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "jobs.py").write_text("import persistq\n@persistq.task\ndef work(): return __name__\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tasks.load("pq_alpha.jobs")
    with pytest.raises(ConfigError, match="work"):
        tasks.load("pq_beta.jobs")


def test_an_app_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no_such_module_of_mine"):
        tasks.load("no_such_module_of_mine")


def test_only_what_is_registered_can_be_found() -> None:
    with pytest.raises(LookupError, match="--app"):
        tasks.find("os.system")


@pytest.mark.parametrize("item", ["not json", "[]", "{}", '{"user_id":1,"extra":2}', '{"user_id":"x"}', "[" * 100_000])
def test_an_item_that_does_not_fit_any_more_is_refused(item: str, queue: Queue) -> None:
    made = task(send)
    queue.enqueue(item, task="send")
    with pytest.raises(PayloadError):
        run(made, queue)


def test_a_plain_item_goes_to_the_handler_as_it_is(queue: Queue) -> None:
    made = task(name="plain")(lambda item: item.upper())
    queue.enqueue("text")
    assert run(made, queue) == "TEXT"


def test_an_async_function_is_a_task_too(queue: Queue) -> None:
    @task
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    double.enqueue(queue, 4)
    assert asyncio.run(run(double, queue)) == 8


def test_a_handler_sees_its_job_and_nobody_else_does(queue: Queue) -> None:
    made = task(name="look")(lambda: persistq.current_job())
    job_id = made.enqueue(queue)
    job = claim(queue)
    assert persistq.current_job() is None
    with tasks.Performing(job, Cancellation()):
        seen = made.call(job)
    assert (seen.id, seen.attempts, seen.fence) == (job_id, 1, 1)
    assert persistq.current_job() is None


def test_a_handler_can_ask_whether_it_is_still_wanted(queue: Queue) -> None:
    queue.enqueue("x")
    cancellation = Cancellation()
    assert not persistq.cancelled()
    with tasks.Performing(claim(queue), cancellation):
        assert not persistq.cancelled()
        cancellation.request()
        assert persistq.cancelled()


def test_a_cancellation_that_comes_early_still_stops() -> None:
    stopped = []
    cancellation = Cancellation()
    cancellation.request()
    cancellation.stops_by(lambda: stopped.append(1))
    assert stopped == [1]
