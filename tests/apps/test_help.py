"""Help: every command explains itself and shows an example."""

import re
import subprocess
import sys

import pytest
from persistq.admin.admin import app
from persistq.admin.commands import COMMANDS, PASSED_ON
from support.cli import COMMAND, invoke, ok
from typer.main import get_command


def _commands() -> list[str]:
    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [f"{name} {sub}" for sub in getattr(command, "commands", {})] or [name]
    return found


@pytest.mark.parametrize("command", [one for one in _commands() if one not in PASSED_ON])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_each_command_shows_an_example(command: str, flag: str) -> None:
    text = re.sub(r"\s+", " ", ok(*command.split(), flag))
    assert text.startswith(f"Usage: persistq {command}")
    assert re.search(rf": persistq {command}", text), text


def test_the_first_page_names_every_command_and_the_exit_codes() -> None:
    page = ok("--help")
    for command in _commands():
        assert command.split()[0] in page
    assert "6 partly done" in page


@pytest.mark.parametrize(
    ("wrong", "meant"),
    {"list-job": "list-jobs", "resumbit": "resubmit", "asign-job": "assign-job", "docter": "doctor"}.items(),
)
def test_an_unknown_command_suggests_the_nearest(wrong: str, meant: str) -> None:
    result = invoke(wrong)
    assert result.exit_code == 2
    assert f"'{meant}'" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_page_says_what_the_command_says(name: str) -> None:
    said = re.sub(r"\s+", " ", get_command(app).commands[name].help or "")  # type: ignore[attr-defined]
    words = COMMANDS[name][1]
    assert said in (f"{words}.", words) or said.startswith((f"{words}: persistq {name}", f"{words}. ")), said


def test_the_first_page_imports_no_command() -> None:
    """What is imported is what takes the time: a bare Typer app has all of it but our own names."""
    script = (
        "import sys\nfrom persistq.admin.admin import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith(('persistq', 'sqlalchemy', 'rich.', 'csv'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    ours = ["persistq", "persistq.admin", "persistq.admin.admin", "persistq.admin.commands"]
    assert done.stdout.splitlines()[-1] == str(ours)


@pytest.mark.parametrize("group", ["db", "config", "queues", "consumers", "workers", "audit"])
def test_a_group_has_all_its_commands_whatever_else_was_imported(group: str) -> None:
    page = subprocess.run([*COMMAND, group, "--help"], capture_output=True, text=True, timeout=60).stdout
    expected = get_command(app).commands[group].commands  # type: ignore[attr-defined]
    assert all(f"\n  {name} " in page for name in expected), page


def test_help_needs_no_database(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ok("list-jobs", "--help")
    assert list(tmp_path.iterdir()) == []
