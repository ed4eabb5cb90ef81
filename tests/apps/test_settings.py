"""Where the commands get their settings from, and what they never say of them."""

import json
import sqlite3
from pathlib import Path

import pytest
from support.cli import invoke, ok, run

import persistq

SECRET = "hunter2"
URLS = {
    "plain": f"postgresql://user:{SECRET}@host/name",
    "in the query": f"postgresql://user@host/name?password={SECRET}",
    "with an at sign": f"postgresql://user:{SECRET}@{SECRET}@host/name",
    "with a question mark": f"postgresql://user:{SECRET}?{SECRET}@host/name",
    "with a slash": f"postgresql://user:{SECRET}/{SECRET}@host/name",
    "with a colon": f"postgresql://user:{SECRET}:{SECRET}@host/name",
    "with a hash": f"postgresql://user:{SECRET}#{SECRET}@host/name",
    "escaped": f"postgresql://user:{SECRET}%3F{SECRET}@host/name",
    "no user": f"mysql://:{SECRET}@host/name",
    "unreadable": f"post gresql://user:{SECRET}@host:port/name",
    "of no database": f"oracle+nonsense://user:{SECRET}@host/name",
}


@pytest.mark.parametrize("where", ["environment", ".env"])
@pytest.mark.parametrize("url", URLS.values(), ids=URLS.keys())
def test_the_password_of_the_database_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, where: str
) -> None:
    if where == ".env":
        (tmp_path / ".env").write_text(f"QUEUE_DB_URL='{url}'\n")
    else:
        monkeypatch.setenv("QUEUE_DB_URL", url)
    for command in ("config show", "--json config show", "list-jobs", "doctor", "-v enqueue item"):
        assert SECRET not in invoke(*command.split()).output


def test_config_show_says_where_each_value_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("QUEUE_DB_FILE=queue.db\nMAX_ATTEMPTS=4\nTIMEOUT_SECONDS=60\nINTERVAL_TIME = 5\n")
    monkeypatch.setenv("MAX_ATTEMPTS", "9")
    rows = {row["name"]: row for row in json.loads(ok("config", "show", "--json"))}
    assert rows["MAX_ATTEMPTS"] == {"name": "MAX_ATTEMPTS", "value": 9, "source": "environment"}
    assert rows["INTERVAL_TIME"] == {"name": "INTERVAL_TIME", "value": 5.0, "source": ".env"}
    assert rows["QUEUE_JOB_DIR"]["source"] == "default"
    assert len(rows) == len(persistq.Settings.model_fields)


BAD = {
    "a number that is none": ("MAX_ATTEMPTS", "sesame"),
    "out of range": ("TIMEOUT_SECONDS", "-7777"),
    "no such choice": ("QUEUE_DURABILITY", "sesame"),
    "a half": ("QUEUE_CONCURRENCY", "77.77"),
}


@pytest.mark.parametrize("command", ["list-jobs", "enqueue item", "config show", "up", "doctor"])
@pytest.mark.parametrize(("name", "value"), BAD.values(), ids=BAD.keys())
def test_a_bad_setting_names_the_variable_and_never_its_value(
    tmp_path: Path, name: str, value: str, command: str
) -> None:
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    result = invoke(*command.split())
    assert result.exit_code == 2
    assert name in result.stderr
    assert value not in result.output
    assert len(result.stderr.splitlines()) == 1


def test_an_env_file_that_is_no_text_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"QUEUE_DB_FILE=\xff\xfe\n")
    result = invoke("list-jobs")
    assert result.exit_code == 2
    assert ".env" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_global_options_stand_before_the_command_and_json_after_it(tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    assert ok("--db", other, "--no-input", "enqueue", "item") == "1\n"
    assert [job["item"] for job in json.loads(ok("--db", other, "--read-only", "list-jobs", "--json"))] == ["item"]
    assert ok("--db", f"sqlite:///{other}", "--format", "ids", "list-jobs") == "1\n"
    assert ok("list-jobs", "--json") == "[]\n"
    assert invoke("list-jobs", "--db", other).exit_code == 2


@pytest.mark.parametrize("variable", ["QUEUE_DB_FILE", "QUEUE_DB_URL"])
@pytest.mark.parametrize("form", ["path", "url"])
def test_db_wins_over_the_settings_for_every_program(tmp_path: Path, variable: str, form: str) -> None:
    """A producer is another program that is handed the choice; it must not look elsewhere."""
    elsewhere, chosen = tmp_path / "elsewhere.db", tmp_path / "chosen.db"
    settings = {variable: f"sqlite:///{elsewhere}" if variable == "QUEUE_DB_URL" else str(elsewhere)}
    option = str(chosen) if form == "path" else f"sqlite:///{chosen}"
    done = run("--db", option, "producer", "--count", "1", "--interval", "0", **settings)
    assert done.returncode == 0, done.stderr
    assert not elsewhere.exists()
    assert persistq.connect(chosen).counts()["pending"] == 1


def test_the_database_is_private_whatever_the_umask(tmp_path: Path) -> None:
    import os

    before = os.umask(0)
    try:
        ok("enqueue", "item")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes.pop("queue.db") == 0o600
    assert set(modes.values()) <= {0o600}
    sqlite3.connect(tmp_path / "queue.db").close()
