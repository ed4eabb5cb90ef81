"""The dashboard's door: who is let in, by rule and at the real server, and what programs read behind it."""

import base64
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from persistq.ops import access
from support.dashboard import Served
from support.databases import SQLite

import persistq

USER, PASSWORD = "olga", "päss:wörd"
KEY = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def rules(**fields: object) -> access.Rules:
    settings = persistq.Settings.load(None, **{f"queue_ops_{name}": value for name, value in fields.items()})
    return access.Rules.of(settings)


def admit(found: access.Rules, *, local: bool = True, **headers: str | list[str]) -> str:
    given = {"host": "127.0.0.1:8501"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [
        (name.encode(), one.encode("latin-1"))
        for name, value in given.items()
        for one in (value if isinstance(value, list) else [value])
    ]
    return found.admit(access.Headers(raw), local=local)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, False),
        ({"write": True}, True),
        ({"password": "x"}, True),
        ({"password": "x", "write": False}, False),
        ({"proxy_header": "X-User"}, True),
        ({"proxy_header": "X-User", "write": False}, False),
    ],
)
def test_who_may_write(fields: dict[str, object], wanted: bool) -> None:
    assert rules(**fields).writing is wanted


def test_without_a_password_it_serves_its_own_machine_only() -> None:
    assert admit(rules()) == persistq.default_actor()
    with pytest.raises(access.Refused, match="its own machine only") as refused:
        admit(rules(), local=False)
    assert refused.value.status == 403
    for header in ("x_forwarded_for", "forwarded", "x_real_ip", "via"):
        with pytest.raises(access.Refused, match="behind a proxy"):
            admit(rules(), **{header: "203.0.113.9"})


@pytest.mark.parametrize(
    "given", ["", "Basic", "Basic !!!", f"Basic {base64.b64encode(b'olga:wrong').decode()}", f"Bearer {KEY}",
              f"Basic {base64.b64encode(b'olga:').decode()}", f"Basic {KEY}x", f"Basic {KEY[:-4]}"]
)  # fmt: skip
def test_with_a_password_nobody_comes_in_without(given: str) -> None:
    guarded = rules(user=USER, password=PASSWORD)
    assert admit(guarded, local=False, authorization=f"Basic {KEY}") == USER
    for headers in ({"authorization": given}, {}):
        with pytest.raises(access.Refused) as refused:
            admit(guarded, **headers)
        assert refused.value.status == 401
    assert PASSWORD not in repr(guarded)


def test_a_proxy_names_the_user() -> None:
    behind = rules(proxy_header="X-Forwarded-User")
    assert admit(behind, x_forwarded_user="anna", x_forwarded_for="203.0.113.9") == "anna"
    for headers in ({}, {"x_forwarded_user": ""}, {"x_forwarded_user": "a\x1bb"}):
        with pytest.raises(access.Refused, match="name the user"):
            admit(behind, **headers)
    with pytest.raises(access.Refused, match="its own machine only"):
        admit(behind, local=False, x_forwarded_user="anna")
    with pytest.raises(access.Refused, match="2 headers"):
        admit(behind, x_forwarded_user=["anna", "root"])


def test_with_proxy_and_password_both_are_needed() -> None:
    both = rules(user=USER, password=PASSWORD, proxy_header="X-User")
    assert admit(both, local=False, authorization=f"Basic {KEY}", x_user="anna") == "anna"
    for headers in ({"x_user": "anna"}, {"authorization": f"Basic {KEY}"}):
        with pytest.raises(access.Refused):
            admit(both, **headers)


@pytest.mark.parametrize(
    ("host", "welcome"),
    {"127.0.0.1:8501": True, "localhost": True, "[::1]:8501": True, "LOCALHOST.:1": True, "ops.example": True,
     "evil.example": False, "127.0.0.1.evil.example": False, "": False, "user@evil.example": False, "[": False,
     "ops.example.evil": False}.items(),
)  # fmt: skip
def test_only_its_own_names_are_answered(host: str, welcome: bool) -> None:
    named = rules(hosts="ops.example, other.example")
    if welcome:
        assert admit(named, host=host)
        return
    with pytest.raises(access.Refused, match="QUEUE_OPS_HOSTS") as refused:
        admit(named, host=host)
    assert refused.value.status == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:8501", ""])
def test_another_site_is_not_answered(origin: str) -> None:
    assert admit(rules(), origin="http://127.0.0.1:8501")
    with pytest.raises(access.Refused, match="another site"):
        admit(rules(), origin=origin)


@pytest.mark.parametrize("hosts", ["http://x/", "*", "a b", "["])
def test_hosts_that_are_none_are_refused(hosts: str) -> None:
    with pytest.raises(persistq.ConfigError, match="QUEUE_OPS_HOSTS"):
        rules(hosts=hosts)


def test_the_password_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_OPS_PASSWORD", "a-secret-word")
    settings = persistq.Settings.load()
    shown = [
        repr(settings),
        str(settings.sources()),
        json.dumps([one.value for one in settings.sources()], default=str),
    ]
    assert not [text for text in shown if "a-secret-word" in text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a queue that holds a few jobs."""
    found = tmp_path_factory.mktemp("guarded")
    Path(SQLite(found).fresh()).rename(found / "queue.db")
    q = persistq.connect(found / "queue.db")
    q.enqueue_many(["first", "second", "third"], "mail")
    q.cancel(2)
    q.close()
    return found


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Served]:
    """A server with a password, bound to every address."""
    served = Served(folder, address="0.0.0.0", QUEUE_OPS_USER=USER, QUEUE_OPS_PASSWORD=PASSWORD, LANG="C.UTF-8")
    yield served
    served.stop()


BEHIND_THE_DOOR = ["/", "/jobs", "/metrics", "/api/jobs", "/api/jobs/1", "/api/counts", "/_stcore/health",
                   "/_stcore/host-config", "/static/js/x.js", "/media/x", "/nothing"]  # fmt: skip


def test_at_the_server_everything_needs_the_password_but_health(guarded: Served) -> None:
    assert guarded.get("/healthz")[0] == 200
    for path in BEHIND_THE_DOOR:
        status, headers, text = guarded.get(path)
        assert (status, headers["www-authenticate"]) == (401, 'Basic realm="persistq", charset="UTF-8"'), path
        assert text == "persistq: user and password, please\n"
        assert guarded.get(path, Authorization=f"Basic {KEY}")[0] in (200, 404), path
    assert guarded.get("//healthz")[0] == guarded.get("/healthz/../")[0] == 401
    assert guarded.websocket() == guarded.websocket(Authorization="Basic b2xnYTp4") == 403
    assert guarded.websocket(Authorization=f"Basic {KEY}") == 101


def test_at_the_server_no_other_host_and_no_other_site(guarded: Served) -> None:
    pass_on = {"Authorization": f"Basic {KEY}"}
    assert guarded.get("/", Host="evil.example", **pass_on)[0] == 403
    assert guarded.get("/api/jobs", Origin="http://evil.example", **pass_on)[0] == 403
    assert guarded.websocket("evil.example", **pass_on) == 403
    assert guarded.websocket(Origin="http://evil.example", **pass_on) == 403
    assert guarded.websocket(Origin=f"http://127.0.0.1:{guarded.port}", **pass_on) == 101


def test_answers_keep_a_browser_from_going_elsewhere(guarded: Served) -> None:
    for path in ("/", "/api/jobs", "/healthz"):
        _, headers, _ = guarded.get(path, Authorization=f"Basic {KEY}")
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe-eval" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"


def test_programs_read_jobs(guarded: Served) -> None:
    def read(path: str) -> object:
        status, _, text = guarded.get(path, Authorization=f"Basic {KEY}")
        assert status == 200, text
        return json.loads(text)

    page = read("/api/jobs?limit=2")
    assert isinstance(page, dict)
    assert [job["id"] for job in page["jobs"]] == [3, 2]
    assert [job["id"] for job in read(f"/api/jobs?before={page['before']}")["jobs"]] == [1]  # type: ignore[index]
    assert [job["item"] for job in read("/api/jobs?status=cancelled&queue=mail")["jobs"]] == ["second"]  # type: ignore[index]
    assert read("/api/jobs?item=nothing") == {"jobs": [], "before": None}
    assert read("/api/jobs/2")["events"][0]["kind"] == "cancelled"  # type: ignore[index]
    assert read("/api/counts")["counts"]["pending"] == 2  # type: ignore[index]
    for path, wanted in {"/api/jobs/99": 404, "/api/jobs?status=odd": 400, "/api/jobs?sort=id": 400,
                         "/api/jobs?before=x": 400, "/api/jobs?since=soon": 400}.items():  # fmt: skip
        status, _, text = guarded.get(path, Authorization=f"Basic {KEY}")
        assert (status, list(json.loads(text))) == (wanted, ["error"]), path


def test_metrics_are_prometheus_text(guarded: Served) -> None:
    _, headers, text = guarded.get("/metrics", Authorization=f"Basic {KEY}")
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'persistq_jobs{queue="mail",status="pending"} 2\n' in text
    assert 'persistq_jobs{queue="mail",status="cancelled"} 1\n' in text
    assert 'persistq_consumers{state="alive"} 0\n' in text
    for line in text.splitlines():
        assert line.startswith("# ") or float(line.rpartition(" ")[2]) >= 0


def test_without_a_password_it_listens_here_only_and_answers_nobody_else(folder: Path) -> None:
    served = Served(folder, "--read-only")
    try:
        assert served.get("/")[0] == 200
        assert served.get("/", X_Forwarded_For="203.0.113.9")[0] == 403
        assert served.websocket() == 101
        assert served.websocket("evil.example") == 403
        assert _listening(served.port) == {"0100007F"}
    finally:
        served.stop()


def test_a_door_without_a_password_that_is_open_to_the_network_is_shut(folder: Path) -> None:
    elsewhere = _own_address()
    if elsewhere is None:
        pytest.skip("this machine has no address but its own")
    served = Served(folder, address="0.0.0.0", QUEUE_OPS_HOSTS=elsewhere)
    try:
        assert served.get("/")[0] == 200
        for headers in ({}, {"X_Forwarded_For": "127.0.0.1"}):
            assert served.get("/api/jobs", host=elsewhere, **headers)[0] == 403
        assert served.get("/healthz", host=elsewhere)[0] == 200
    finally:
        served.stop()


def _listening(port: int) -> set[str]:
    """Return the addresses, as the kernel writes them, on which somebody listens at the port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {fields[1].partition(":")[0] for fields in lines
            if fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port}  # fmt: skip


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which address would be used
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


def test_without_streamlit_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from persistq.admin import processes
    from support.cli import invoke

    monkeypatch.setattr(processes, "find_spec", lambda _name: None)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was started"))
    result = invoke("ops")
    assert (result.exit_code, "persistq[dashboard]" in result.stderr) == (1, True)
