"""Requests: what may be one, what it becomes in storage, and how routes are checked."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import msgspec
import pydantic
import pytest
from support.clock import FakeClock
from support.shards import World, Worlds, asynchronous, make_handler, said

from persistq import ConfigError, PayloadError
from persistq.sharded import Handler, Queue, Route, Tube, settings
from persistq.sharded.requests import codec_of, decode, encode


class Named(NamedTuple):
    user_id: int
    text: str | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    user_id: int
    text: str | None = None
    at: datetime | None = None
    share: float = 0.5


class Model(pydantic.BaseModel):
    user_id: int
    text: str | None = None
    more: Any = None


class Struct(msgspec.Struct):
    user_id: int
    text: str | None = None
    share: float = 0.5


class Pair(NamedTuple):
    user_id: int
    text: str


class Checked(Pair):
    """A NamedTuple with a way of its own to be made."""

    def __new__(cls, user_id: int, text: str) -> Self:
        if user_id < 0:
            raise ValueError("no such user")
        return super().__new__(cls, user_id, text)


class Nothing(NamedTuple):
    """A request that says nothing but that it was made."""


class ArrayLike(msgspec.Struct, array_like=True):
    user_id: int


class Bare:
    user_id: int


REQUESTS = [  # each as awkward as its class allows
    Named(1, "ü\U0001f600\0\n"), Named(-(1 << 70)), Data(1, "x", datetime(2024, 2, 29, 1, 2, 3, 456, tzinfo=UTC)),
    Model(user_id=1, text="", more=[{"a": None}, 0, False]), Struct(0, "0"), Pair(1, "b"), Checked(1, "b"),
]  # fmt: skip


def read(cls: Any, payload: bytes) -> Any:
    """Return the request, or raise why it is none."""
    found, error = decode(codec_of(cls), [payload])
    if error:
        raise error
    return found[0]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_comes_back_as_it_was(request_: Any) -> None:
    which = codec_of(type(request_))
    (payload,) = encode(which, [request_], 1 << 20)
    assert payload.startswith(b'{"user_id":')
    assert read(type(request_), payload) == request_


@pytest.mark.parametrize("cls", [Named, Data, Model, Struct])
@pytest.mark.parametrize(
    "payload",
    [b'{"user_id":1,"colour":2}', b'{"text":"x"}', b'{"user_id":"one"}', b"[1,null]", b"null", b"", b"\xff", b"{"],
)
def test_bytes_of_another_shape_are_refused(cls: Any, payload: bytes) -> None:
    with pytest.raises(PayloadError):
        read(cls, payload)


@pytest.mark.parametrize("cls", [Named, Pair, Checked, Data, Model, Struct])
def test_what_stands_before_bytes_of_another_shape_is_read(cls: Any) -> None:
    payloads = [b'{"text":"x","user_id":%d}' % n for n in range(4)]
    payloads[2] = b'{"user_id":1,"text":"x"},' + payloads[2]
    found, error = decode(codec_of(cls), payloads)
    assert found == [cls(user_id=n, text="x") for n in range(2)]
    assert all(type(request) is cls for request in found)
    assert isinstance(error, PayloadError)


def test_a_way_of_its_own_to_be_made_is_gone() -> None:
    with pytest.raises(PayloadError, match="no such user"):
        read(Checked, b'{"user_id":-1,"text":""}')


def test_a_request_may_say_nothing() -> None:
    which = codec_of(Nothing)
    assert decode(which, encode(which, [Nothing()], 100)) == ([Nothing()], None)


@pytest.mark.parametrize(
    ("cls", "missing"), [(Named, "user_id"), (Data, "user_id"), (Model, "user_id"), (Struct, "user_id")]
)
def test_the_reason_names_the_field_but_not_what_was_in_it(cls: Any, missing: str) -> None:
    with pytest.raises(PayloadError, match=missing) as caught:
        read(cls, b'{"text":"secret"}')
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("cls", [Named, Data, Model, Struct])
def test_a_field_that_was_added_with_a_default_is_no_drift(cls: Any) -> None:
    assert read(cls, b'{"user_id":1}') == cls(user_id=1)


@pytest.mark.parametrize(
    "request_", [Data(1, share=float("nan")), Data(1, share=float("inf")), Struct(1, share=float("-inf")),
                 Model(user_id=1, more={"a": [float("nan")]}), Model(user_id=1, more=object()), Named(1, object())],  # type: ignore[arg-type]
    ids=["nan", "inf", "-inf", "within", "an object", "in a tuple"],
)  # fmt: skip
def test_what_is_not_json_is_refused_when_it_is_registered(request_: Any) -> None:
    with pytest.raises(PayloadError):
        encode(codec_of(type(request_)), [request_], 1 << 20)


def test_a_request_of_another_class_is_refused() -> None:
    with pytest.raises(PayloadError, match="Named here, not a Data"):
        encode(codec_of(Named), [Named(1), Data(1)], 1 << 20)


def test_a_request_that_is_too_long_is_refused() -> None:
    with pytest.raises(PayloadError, match="bytes of JSON"):
        encode(codec_of(Named), [Named(1, "x" * 300_000)], 262_144)


@pytest.mark.parametrize("cls", [Bare, ArrayLike, int | str, tuple, object], ids=repr)
def test_a_class_that_cannot_be_kept_is_refused_with_the_remedy(cls: Any) -> None:
    with pytest.raises(ConfigError):
        codec_of(cls)


@pytest.mark.parametrize("value", [0, "", None, [], {}, [1, {"a": "ü"}], False, "\0"], ids=repr)
def test_without_an_annotation_any_json_value_is_a_request(value: Any) -> None:
    which = codec_of(Any)
    assert decode(which, encode(which, [value], 1000)) == ([value], None)


# Routes


@pytest.fixture
def queue(clock: FakeClock) -> Queue:
    world: World = Worlds(None, None).fresh("memory", clock)  # type: ignore[arg-type]
    return Queue(world.storage())


class Anything(Handler):
    @classmethod
    async def route(cls, *requests: Any) -> Any:
        return cls.routes

    routes: Any = ()

    async def perform(self, *requests: Any) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    "routes", [[], [Route()], [Route()] * 3, None, 5, [Route(True), Route()], [Route(1.5), Route()],
               [Route(""), Route()],
               [Route("x" * 129), Route()], [Route("a\0"), Route()],
               [Route("\ud800"), Route()], [Route(0, "1"), Route()],
               [Route(0, 1 << 31), Route()], [Route(1 << 63), Route()], [3, 4], [(1,), (2,)]], ids=ascii,
)  # fmt: skip
@asynchronous
async def test_routes_that_are_no_good_are_refused_before_anything_is_written(queue: Queue, routes: Any) -> None:
    Anything.routes = routes
    with pytest.raises(ConfigError):
        await queue.register(Anything, 1, 2)
    assert await queue.storage.tubes() == []


@asynchronous
async def test_threads_are_numbers_or_names(queue: Queue) -> None:
    Anything.routes = [Route(1), Route("1"), Route("tenant/7 ü"), (-5, 3), Route(1)]
    assert await queue.register(Anything, "a", "b", "c", "d", "e") == 5
    assert sorted(await queue.storage.tubes()) == ["Anything/-5", "Anything/1", "Anything/tenant/7 ü"]
    assert said(await queue.storage.peek("Anything/1", 9)) == [b'"a"', b'"b"', b'"e"']


@pytest.mark.parametrize(
    "tube", [Tube("H", 0), Tube("H", -5), Tube("H", "007"), Tube("H", "a/b"), Tube("H.x-y_z", "ü")], ids=str
)
def test_a_tube_is_found_by_its_name(tube: Tube) -> None:
    assert Tube.parse(str(tube)) == tube


@pytest.mark.parametrize("name", ["", "H", "H/", "/0", "a b/0", "H/\0", "H/" + "x" * 200, "os;system/1"])
def test_other_names_are_no_tubes(name: str) -> None:
    with pytest.raises(ConfigError):
        Tube.parse(name)


@asynchronous
async def test_the_default_route_is_what_the_settings_say_now(queue: Queue) -> None:
    class Default(Handler):
        async def perform(self, *requests: int) -> None:
            raise AssertionError

    settings.reload()
    try:
        assert Route() == (0, 0)
        await queue.register(Default, 1)
        settings.default_thread, settings.default_priority = 7, 3
        assert Route() == (7, 3)
        await queue.register(Default, 2)
    finally:
        settings.reload()
    assert await queue.storage.tubes() == ["Default/0", "Default/7"]
    (first,), (second,) = await queue.storage.peek("Default/0", 5), await queue.storage.peek("Default/7", 5)
    assert second.place == first.place - 3


@asynchronous
async def test_nothing_to_register_is_nothing(queue: Queue) -> None:
    handler, _ = make_handler()
    assert await queue.register(handler) == 0


@pytest.mark.parametrize(
    "options", [{"defer": -1}, {"defer": "1"}, {"defer": float("nan")}, {"recurrent": 0}, {"recurrent": -5},
                {"recurrent": True}, {"defer": timedelta(days=99_999)}], ids=repr,
)  # fmt: skip
@asynchronous
async def test_times_that_are_none_are_refused(queue: Queue, options: Any) -> None:
    Anything.routes = [Route()]
    with pytest.raises(ConfigError):
        await queue.register(Anything, 1, **options)


@asynchronous
async def test_requests_are_deferred_repeated_left_out_and_withdrawn(queue: Queue, clock: FakeClock) -> None:
    Anything.routes = [Route()]
    assert await queue.register(Anything, "now", defer=0) == 1
    assert await queue.register(Anything, "now", if_not_exists=True) == 0
    assert await queue.register(Anything, "later", defer=timedelta(seconds=5)) == 1
    assert await queue.register(Anything, "tick", recurrent=10) == 1
    assert await queue.register(Anything, "tick", recurrent=10) == 0
    assert await queue.register(Anything, "early tick", recurrent=10, defer=0) == 1
    clock.advance(6)
    await queue.storage.mature()
    assert said(await queue.storage.peek("Anything/0", 9)) == [b'"now"', b'"early tick"', b'"later"']
    assert await queue.withdraw(Anything, "tick") == 1
    clock.advance(100)
    await queue.storage.mature()
    assert b'"tick"' not in said(await queue.storage.peek("Anything/0", 9))
