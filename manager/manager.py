"""``python -m manager.manager`` = ``persistq tui``: the queue on a full screen, for whoever runs it."""

import argparse
import os
import sys
from collections.abc import Sequence

import persistq
from persistq import spans
from persistq.text import safe_text

__path__ = [os.path.join(os.path.dirname(__file__), "_alias")]  # noqa: PTH118, PTH120 - manager.manager.py starts it too

EXIT_FAILED, EXIT_USAGE, EXIT_DATABASE = 1, 2, 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the manager and return the process's exit code."""
    options = _parser().parse_args(arguments)
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        return _fail(
            "this is a full-screen program and needs a terminal; scripts use list-jobs and its kin", EXIT_USAGE
        )
    try:
        from .app import App
        from .session import Session
    except ModuleNotFoundError as error:
        if error.name != "prompt_toolkit":
            raise
        return _fail("the full-screen manager is not installed; pip install 'persistq[tui]'", EXIT_FAILED)
    try:
        interval = spans.seconds(options.interval)
        actor = f"tui:{persistq.default_actor()}"
        q = persistq.connect(options.db, actor=actor, read_only=options.read_only)
    except persistq.PersistQError as error:
        return _fail(str(error), EXIT_USAGE)
    if options.read_only and not q.database.exists():
        return _fail(f"there is no database {q.dbname}, and a read-only window makes none", EXIT_DATABASE)
    code = App(Session(q, interval=interval, hides_items=options.no_items), color=not options.no_color).run()
    try:
        sys.stdout.flush()
    except OSError:  # the terminal is gone; Python would complain of it once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _fail(why: str, code: int) -> int:
    print(f"persistq: {safe_text(why)}", file=sys.stderr)  # noqa: T201 - there is no screen yet
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="persistq tui",
        description="The queue on a full screen: ? lists the keys, q leaves. Whatever writes asks first.",
        epilog="Exit codes: 0 left by q, 1 failed, 2 usage or no terminal, 5 no database, 130 interrupted, 143 ended.",
    )
    parser.add_argument("--db", metavar="PATH|URL", help="the database, instead of the settings'")
    parser.add_argument("--read-only", action="store_true", help="refuse every command that writes")
    parser.add_argument(
        "--interval", default="2", metavar="SECONDS", help="seconds between two looks, at least 1 (%(default)s)"
    )
    parser.add_argument("--no-items", action="store_true", help="show no items and no results")
    parser.add_argument("--no-color", action="store_true", help="no colours; NO_COLOR does the same")
    return parser


if __name__ == "__main__":
    sys.exit(main())
