"""``python -m admin.admin`` = ``persistq``: the command line, which parses, calls one method, prints."""

import os
import sys
from importlib import import_module
from typing import Annotated, Any

try:
    import typer
    from typer.core import TyperGroup
    from typer.main import get_command, get_group
except ModuleNotFoundError:
    sys.exit("persistq: the command line is not installed; pip install 'persistq[cli]'")

import persistq

from .commands import COMMANDS, FORMATS, PASSED_ON


class _Commands(dict[str, Any]):
    """The commands by name, each made when it is first asked for."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(COMMANDS))

    def __getitem__(self, name: str) -> Any:
        made = super().__getitem__(name)
        if made is None:
            made = self[name] = _make(name)
        return made

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - that is this very method

    def items(self) -> Any:
        return [(name, self[name]) for name in self]

    def values(self) -> Any:
        return [self[name] for name in self]


def _make(name: str) -> Any:
    """Return a command, or a group of them, with everything that it needs imported."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    found = getattr(import_module(f".{module}", __package__), attribute)
    if isinstance(found, typer.Typer):
        made: Any = get_group(found)
    else:
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        if name in PASSED_ON:
            settings = {"allow_extra_args": True, "ignore_unknown_options": True}
            alone.command(context_settings=settings, add_help_option=False)(found)
        else:
            alone.command()(found)
        made = get_command(alone)
    made.name = name
    return made


class _Door(TyperGroup):
    """Turns errors into one line and an exit code, for every command alike."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands of the first page, without importing any."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, f"{words}.") for name, (_, words) in COMMANDS.items()])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except persistq.PersistQError as error:
            from .window import exit_code, say

            say(f"persistq: {error}")
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:
            # The reader, such as head, has seen enough. Python would complain once more when it closes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if _is_typers_own(error):
                self._point_to_the_front(error)
                raise
            if ctx.params.get("verbose"):
                import traceback

                traceback.print_exc()
            from .window import say

            say(f"persistq: {type(error).__name__}: {error} (-v shows where)")
            raise typer.Exit(1) from None

    def _point_to_the_front(self, error: Any) -> None:
        """Say of an option of every command, typed behind one, where it stands."""
        option = getattr(error, "option_name", None)
        if any(option in parameter.opts for parameter in self.params):
            error.message, error.possibilities = f"{option} stands before the command: persistq {option} ...", None


app = typer.Typer(
    cls=_Door,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 failed or aborted, 2 usage, 3 not found, 4 wrong state, 5 database, 6 partly done.",
)


def _print_version(asked: bool) -> None:
    if asked:
        print(persistq.__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    db: Annotated[str | None, typer.Option(metavar="PATH|URL", help="The database, instead of the settings'.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every command that writes.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; what would ask needs --yes.")] = False,
    form: Annotated[str | None, typer.Option("--format", metavar="|".join(FORMATS), help="How to print rows.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    fields: Annotated[str | None, typer.Option(metavar="A,B", help="Of rows, only these fields.")] = None,
    no_items: Annotated[
        bool, typer.Option("--no-items", help="Show no items and no results; errors may quote them.")
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR does the same.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show where an unexpected error comes from.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run a persistent job queue.

    First steps: persistq enqueue hello; persistq list-jobs; persistq up.
    """
    if form is not None and form not in FORMATS:
        raise typer.BadParameter(f"one of {', '.join(FORMATS)}", param_hint="--format")
    from . import output
    from .window import Window

    output.hide_items(no_items)
    if no_color:
        os.environ["NO_COLOR"] = "1"
    only = tuple(name.strip() for name in (fields or "").split(",") if name.strip())
    context.obj = Window(db, read_only, no_input, "json" if as_json else form, verbose, only, no_items)


def _is_typers_own(error: Exception) -> bool:
    return type(error).__module__.split(".")[0] == "typer"


def main() -> None:
    """Run the command line; the console script calls this."""
    app(prog_name="persistq")


if __name__ == "__main__":
    main()
