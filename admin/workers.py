"""Commands on supervised consumers: add, stop, status, over supervisord's own socket."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from xmlrpc.client import Fault, ServerProxy

import typer

from persistq.text import safe_text

from .window import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, Json, fail, say, window

app = typer.Typer(no_args_is_help=True, help="Add, stop and list supervised consumers.", rich_markup_mode=None)

SOCKET = Path("run/supervisor.sock")
ADDED = Path("supervisor/workers.d")
COLUMNS = ("name", "state", "pid", "uptime", "description")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
_GRACE_BESIDES_SECONDS = 40
_SECTION = """\
; Written by 'persistq workers add'; 'persistq workers stop {name} --remove' takes it away.
[program:{name}]
command=python -m persistq.consumer.consumer{options}
priority=100
autostart=true
autorestart=true
startsecs=3
startretries=10
stopsignal=TERM
stopwaitsecs={wait}
stopasgroup=false
killasgroup=true
environment=PYTHONUNBUFFERED="1"
stdout_logfile=%(here)s/../../logs/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=5
stderr_logfile=%(here)s/../../logs/{name}_err.log
stderr_logfile_maxbytes=10MB
stderr_logfile_backups=5
"""


@app.command("status")
def status(context: typer.Context, as_json: Json = False) -> None:
    """List what supervisord runs: persistq workers status."""
    with _asking() as supervisor:
        rows = [_row(info) for info in supervisor.getAllProcessInfo()]
    window(context).show(rows, COLUMNS, as_json=as_json)


@app.command("add")
def add(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, max=100, help="So many consumers.")] = 1,
    queue: Annotated[list[str] | None, typer.Option(help="Serve this queue; repeatable.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, max=1000, help="Jobs that each performs at once.")] = None,
    module: Annotated[list[str] | None, typer.Option("--app", help="Import this module's tasks; repeatable.")] = None,
) -> None:
    """Start more consumers beside those there are, and print their names: persistq workers add --count 2 --queue mail.

    They are written to supervisor/workers.d, so that they come back with supervisord; the others go on undisturbed.
    """
    seen = window(context)
    seen.refuse_writing()
    options = _options(queue or [], concurrency, module or [])
    grace = seen.queue().settings.queue_grace_seconds
    with _asking() as supervisor:
        known = {info["group"] for info in supervisor.getAllProcessInfo()}
        names = _free_names(known, count)
        seen.queue().note("workers_add", {"workers": names, "options": options.strip()})
        ADDED.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            text = _SECTION.format(name=name, options=options, wait=round(grace + _GRACE_BESIDES_SECONDS))
            path = ADDED / f"{name}.conf"
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(text, encoding="utf-8")
        supervisor.reloadConfig()
        for name in names:
            try:
                supervisor.addProcessGroup(name)
            except Fault as fault:
                fail(
                    f"supervisord does not read {ADDED}: {fault.faultString}; its configuration needs the lines "
                    "[include] and files=workers.d/*.conf",
                    EXIT_FAILED,
                )
            print(name)


@app.command("stop")
def stop(
    context: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As 'workers status' shows them.")],
    remove: Annotated[bool, typer.Option("--remove", help="For good, if 'workers add' started it.")] = False,
) -> None:
    """Let workers finish their jobs and stay down: persistq workers stop consumer_00."""
    seen = window(context)
    seen.refuse_writing()
    with _asking() as supervisor:
        running = {info["name"]: info for info in supervisor.getAllProcessInfo()}
        chosen = [running.get(name.rpartition(":")[2]) for name in names]
        for name, info in zip(names, chosen, strict=True):
            if info is None:
                fail(f"supervisord has no process {name}; 'persistq workers status' shows them", EXIT_NOT_FOUND)
        seen.queue().note("workers_stop", {"workers": names, "removed": remove})
        for info in filter(None, chosen):
            _stop(supervisor, info, remove=remove)
            print(info["name"])


def socket() -> Path:
    """Return the path of supervisord's socket."""
    return SOCKET.absolute()


def rpc() -> Any:
    """Return supervisord's own calls, over its socket."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{socket()}")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor


@contextmanager
def _asking() -> Iterator[Any]:
    try:
        import supervisor  # noqa: F401
    except ImportError:
        fail("supervisord is not installed; pip install 'persistq[supervisor]'", EXIT_FAILED)
    try:
        SOCKET.stat()
        yield rpc()
    except OSError as error:
        fail(
            f"supervisord does not answer at {SOCKET} ({error.strerror or error}); start it here: persistq up, or "
            "supervisord -c supervisor/supervisord.conf",
            EXIT_FAILED,
        )
    except Fault as fault:
        fail(f"supervisord refused: {fault.faultString}", EXIT_FAILED)


def _stop(supervisor: Any, info: dict[str, Any], *, remove: bool) -> None:
    name, full = info["name"], f"{info['group']}:{info['name']}"
    kept = ADDED / f"{name}.conf"
    if remove and not kept.exists():
        fail(f"'workers add' did not start {name}; change supervisor/supervisord.conf instead", EXIT_USAGE)
    if info["statename"] in ("RUNNING", "STARTING", "BACKOFF"):
        say(f"persistq: {name} finishes its jobs")
        supervisor.stopProcess(full)
    if remove:
        kept.unlink()
        supervisor.reloadConfig()
        supervisor.removeProcessGroup(info["group"])


def _options(queues: list[str], concurrency: int | None, modules: list[str]) -> str:
    """Return a consumer's options; each is checked, for they become a part of a command in a file."""
    words: list[str] = []
    for option, values, form in (("--queue", queues, _NAME), ("--app", modules, _MODULE)):
        for value in values:
            if not form.fullmatch(value):
                fail(f"{option} {value!r:.80} is no name that it can take", EXIT_USAGE)
            words += [option, value]
    if concurrency is not None:
        words += ["--concurrency", str(concurrency)]
    return "".join(f" {word}" for word in words)


def _free_names(known: set[str], count: int) -> list[str]:
    taken = known | {path.stem for path in ADDED.glob("*.conf")}
    return [name for number in range(10_000) if (name := f"worker_{number:02d}") not in taken][:count]


def _row(info: dict[str, Any]) -> dict[str, Any]:
    up = info["now"] - info["start"] if info["statename"] == "RUNNING" else None
    return {
        "name": info["name"],
        "group": info["group"],
        "state": info["statename"],
        "pid": info["pid"] or None,
        "uptime": up,
        "description": safe_text(info["description"]),
    }
