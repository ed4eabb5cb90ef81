"""--watch: a look again and again, in place on a terminal, one below the other elsewhere."""

import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated

import typer

from .output import on_terminal

Watch = Annotated[
    float | None, typer.Option("--watch", min=0.1, metavar="SECONDS", help="Look again every so often, until Ctrl-C.")
]

_HOME_AND_CLEAR = "\x1b[H\x1b[2J"


def again(look: Callable[[], None], every: float | None) -> None:
    """Call ``look``, which prints; again and again if ``every`` is given."""
    if every is None:
        look()
        return
    while True:
        if sys.stdout.isatty():
            size = shutil.get_terminal_size()
            shown = io.StringIO()
            with on_terminal(size.columns), redirect_stdout(shown):
                look()
            # What does not fit would scroll the top away at each look.
            print(_HOME_AND_CLEAR + "\n".join(shown.getvalue().splitlines()[: size.lines - 1]), flush=True)
        else:
            look()
            sys.stdout.flush()
        time.sleep(every)
