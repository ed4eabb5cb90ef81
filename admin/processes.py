"""Commands that become another program: consumer, producer, the full-screen manager and the dashboard."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from .window import EXIT_FAILED, choose_database, fail, window

_DASHBOARD = Path(__file__).resolve().parent.parent / "ops" / "ops.py"


def consumer(context: typer.Context) -> None:
    """Perform jobs until told to stop; its own options: persistq consumer --help."""
    _become(context, "persistq.consumer.consumer")


def producer(context: typer.Context) -> None:
    """Make job files, one every INTERVAL_TIME seconds; its own options: persistq producer --help."""
    _become(context, "persistq.producer.producer")


def tui(context: typer.Context) -> None:
    """Run the queue on a full screen; its own options: persistq tui --help."""
    seen = window(context)
    given = {"--read-only": seen.read_only, "--no-items": seen.no_items}
    _become(context, "persistq.manager.manager", *(option for option, set_ in given.items() if set_), writes=False)


def ops(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where it listens.")] = 8501,
    address: Annotated[str, typer.Option(help="Another one needs QUEUE_OPS_PASSWORD.")] = "127.0.0.1",
) -> None:
    """Show the queue in a browser, on this machine only unless the settings say more: persistq ops --port 8600.

    It is for looking only until QUEUE_OPS_WRITE or QUEUE_OPS_PASSWORD is set.
    """
    if find_spec("streamlit") is None:
        fail("the dashboard is not installed; pip install 'persistq[dashboard]'", EXIT_FAILED)
    if window(context).read_only:
        os.environ["QUEUE_OPS_WRITE"] = "0"
    if window(context).no_items:
        os.environ["QUEUE_OPS_HIDE_ITEMS"] = "1"
    context.args += ["run", str(_DASHBOARD), f"--server.port={port}", f"--server.address={address}"]
    _become(context, "streamlit", writes=False)


def _become(context: typer.Context, module: str, *more: str, writes: bool = True) -> NoReturn:
    seen = window(context)
    if writes:
        seen.refuse_writing()
    if seen.db:
        choose_database(seen.db)
    # exec, not a child: signals and the exit code are then the program's own.
    os.execv(sys.executable, [sys.executable, "-m", module, *more, *context.args])  # noqa: S606
