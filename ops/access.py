"""Who may come in: one decision for every request and every websocket, before any of Streamlit's code sees it."""

import base64
import binascii
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

from persistq import ConfigError, Settings, default_actor

OPEN_PATH = "/healthz"
"""Answers everybody, and with one word only."""

VISITOR_HEADER = "x-persistq-visitor"
"""Under which a request that was let in carries the visitor's name; whatever came under it from outside is dropped."""

_LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
_ANSWER_HEADERS = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request is not let in; the message says what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say about visitors."""

    user: str = "ops"
    password: str | None = field(default=None, repr=False)
    proxy_header: str | None = None
    #: Whether visitors may change anything.
    writing: bool = False
    #: Names of this server, as a Host header has them, without the port.
    hosts: frozenset[str] = frozenset(_LOCAL_HOSTS)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the rules of the settings.

        Raises:
            ConfigError: a host is not usable.
        """
        secret = settings.queue_ops_password
        hosts = [name.strip().lower() for name in (settings.queue_ops_hosts or "").split(",") if name.strip()]
        if wrong := [name for name in hosts if set(name) & set("/*@ ") or _name_of(name) is None]:
            raise ConfigError(f"QUEUE_OPS_HOSTS: {wrong[0]!r:.80} is no host name")
        guarded = secret is not None or settings.queue_ops_proxy_header is not None
        return cls(
            user=settings.queue_ops_user,
            password=secret.get_secret_value() if secret is not None else None,
            proxy_header=(settings.queue_ops_proxy_header or "").lower() or None,
            writing=guarded if settings.queue_ops_write is None else settings.queue_ops_write,
            hosts=frozenset([*_LOCAL_HOSTS, *hosts]),
        )

    def admit(self, headers: "Headers", *, local: bool) -> str:
        """Return the visitor's name; ``local`` says that the connection came in over the loopback interface.

        Raises:
            Refused
        """
        self._check_host(headers)
        if self.password is None:
            self._check_place(headers, local=local)
        else:
            self._check_password(headers)
        if self.proxy_header is None:
            return self.user if self.password is not None else default_actor()
        name = headers.one(self.proxy_header)
        if not name or not name.isprintable():
            raise Refused(401, f"the proxy has to name the user in the header {self.proxy_header}")
        return name

    def _check_host(self, headers: "Headers") -> None:
        host = headers.one("host") or ""
        if _name_of(host) not in self.hosts:
            raise Refused(403, "this server does not answer to that name; QUEUE_OPS_HOSTS lists those that it does")
        origin = headers.one("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise Refused(403, "requests from another site are not answered")

    def _check_place(self, headers: "Headers", *, local: bool) -> None:
        if not local:
            raise Refused(403, "without QUEUE_OPS_PASSWORD the dashboard serves its own machine only")
        if self.proxy_header is None and any(headers.all(name) for name in _FORWARDING):
            raise Refused(403, "behind a proxy the dashboard needs QUEUE_OPS_PASSWORD or QUEUE_OPS_PROXY_HEADER")

    def _check_password(self, headers: "Headers") -> None:
        given = _credentials(headers.one("authorization") or "")
        wanted = f"{self.user}:{self.password}".encode()
        if not secrets.compare_digest(given, wanted):
            raise Refused(401, "user and password, please")


class Headers:
    """The headers of one request."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._found: dict[str, list[str]] = {}
        for name, value in raw:
            self._found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))

    def all(self, name: str) -> list[str]:
        """Return every value."""
        return self._found.get(name, [])

    def one(self, name: str) -> str | None:
        """Return the value, or None.

        Raises:
            Refused: there are several, and whoever reads another than we do is deceived.
        """
        values = self.all(name)
        if len(values) > 1:
            raise Refused(400, f"there are {len(values)} headers {name}")
        return values[0] if values else None


class Guard:
    """The middleware that asks the rules."""

    def __init__(self, app: App, rules: Rules, page: str = "") -> None:
        self.app, self.rules = app, rules
        self._headers = [(b"content-security-policy", _policy(page).encode()), *_ANSWER_HEADERS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope["headers"])
        visitor = ""
        if scope["path"] != OPEN_PATH:
            try:
                visitor = self.rules.admit(headers, local=_is_local(scope))
            except Refused as refused:
                await self._refuse(refused, scope, receive, send)
                return
        passed = [(name, value) for name, value in scope["headers"] if name.lower() != VISITOR_HEADER.encode()]
        passed.append((VISITOR_HEADER.encode(), quote(visitor).encode()))
        await self.app({**scope, "headers": passed}, receive, self._with_headers(send))

    def _with_headers(self, send: Send) -> Send:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *self._headers]}
            await send(message)

        return sending

    async def _refuse(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        text = f"persistq: {refused}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(text)).encode())]
        if refused.status == 401:
            headers.append((b"www-authenticate", b'Basic realm="persistq", charset="UTF-8"'))
        sending = self._with_headers(send)
        await sending({"type": "http.response.start", "status": refused.status, "headers": headers})
        await sending({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})


_rules: Rules | None = None


def stand_guard(rules: Rules) -> Rules:
    """Let these be the rules of this process, for pages as for the door."""
    global _rules
    _rules = rules
    return rules


def guarded_by() -> Rules | None:
    """Return the rules that this process guards its door by; None while it has no door."""
    return _rules


def visitor_of(value: str | None) -> str:
    """Return the name that the guard put into the header; without a guard it is the person who started us."""
    return unquote(value) if value else default_actor()


def _policy(page: str) -> str:
    """Return what a browser may load and run: nothing from elsewhere, whatever a job says.

    Of the scripts within ``page``, the HTML that is served, only these very ones.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    own = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return (
        f"default-src 'self'; script-src {own}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    )


def _name_of(host: str) -> str | None:
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".") or None
    except ValueError:
        return None


def _credentials(header: str) -> bytes:
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(coded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _is_local(scope: Scope) -> bool:
    """Return whether the connection ends at a loopback address, and so began at one.

    The peer's own address would not do: servers replace it by what a proxy says.
    """
    try:
        return ipaddress.ip_address((scope.get("server") or ("",))[0]).is_loopback
    except ValueError:
        return False
