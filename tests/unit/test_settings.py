"""Settings: every variable, where it may come from, and what is said of a bad one."""

from pathlib import Path
from typing import Any

import pytest

import persistq
from persistq import ConfigError, Settings
from persistq.settings import mask_url

SEED_DEFAULTS = {
    "queue_db_file": "queue.db",
    "max_attempts": 3,
    "timeout_seconds": 60,
    "interval_time": 5,
    "queue_coordinator_delay": 1,
    "queue_coordinator_prefix": "lock_",
    "queue_coordinator_timeout": 86_400,
    "queue_default_priority": 0,
    "queue_default_thread": 0,
    "queue_tube_prefix": "tube_",
    "queue_worker_batch_size": 128,
    "queue_worker_empty_limit": 16,
    "queue_worker_empty_pause": 0.1,
}
OUR_DEFAULTS = {
    "queue_db_url": None,
    "queue_durability": "power",
    "queue_task": "stamp_file",
    "queue_backoff_seconds": 1,
    "queue_backoff_max_seconds": 600,
    "queue_recovery_seconds": 5,
    "queue_poll_seconds": 1,
}


def env_file(text: str) -> None:
    Path(".env").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("name", "value"), [*SEED_DEFAULTS.items(), *OUR_DEFAULTS.items()])
def test_a_variable_has_the_default_that_the_documents_give(name: str, value: object) -> None:
    assert getattr(Settings.load(), name) == value


@pytest.mark.parametrize("name", [*SEED_DEFAULTS, *OUR_DEFAULTS])
def test_a_field_in_capitals_is_the_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = {"queue_durability": "process", "queue_db_url": "sqlite:///x"}.get(name, "7")
    monkeypatch.setenv(name.upper(), value)
    assert str(getattr(Settings.load(), name)).removesuffix(".0") == value


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("INTERVAL_TIME = 5.5\n", "interval_time", 5.5),
        ("   MAX_ATTEMPTS=4\n", "max_attempts", 4),
        ("\tTIMEOUT_SECONDS = 0.25\n", "timeout_seconds", 0.25),
        ("# a comment\n\nQUEUE_DB_FILE=other.db # why\n", "queue_db_file", "other.db"),
        ("QUEUE_DB_FILE='my queue.db'\n", "queue_db_file", "my queue.db"),
        ("export QUEUE_DB_FILE=other.db\n", "queue_db_file", "other.db"),
        ("INTERVAL_TIME=7\r\nMAX_ATTEMPTS=2\r\n", "interval_time", 7),
        ("max_attempts=6\n", "max_attempts", 6),
        ("MAX_ATTEMPTS=\n", "max_attempts", 3),
        ("QUEUE_JOB_DIR=arbeit-für-später\n", "queue_job_dir", "arbeit-für-später"),
    ],
)
def test_the_env_file_is_read_as_people_write_it(text: str, name: str, value: object) -> None:
    env_file(text)
    assert getattr(Settings.load(), name) == value


def test_the_seed_document_s_own_file_is_understood() -> None:
    env_file("    QUEUE_DB_FILE=queue.db\n    MAX_ATTEMPTS=3\n    TIMEOUT_SECONDS=60\n    INTERVAL_TIME = 5\n")
    found = Settings.load()
    assert (found.queue_db_file, found.max_attempts, found.timeout_seconds, found.interval_time) == (
        "queue.db", 3, 60, 5,
    )  # fmt: skip


def test_an_argument_wins_over_the_environment_over_the_file_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().max_attempts == 3
    env_file("MAX_ATTEMPTS=4\n")
    assert Settings.load().max_attempts == 4
    monkeypatch.setenv("MAX_ATTEMPTS", "5")
    assert Settings.load().max_attempts == 5
    assert Settings.load(max_attempts=6).max_attempts == 6


def test_an_empty_variable_means_what_it_would_mean_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    env_file("MAX_ATTEMPTS=4\n")
    monkeypatch.setenv("MAX_ATTEMPTS", "")
    assert Settings.load().max_attempts == 4


def test_settings_are_read_when_asked_for_not_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    before = persistq.connect("a.db")
    monkeypatch.setenv("MAX_ATTEMPTS", "9")
    assert (before.settings.max_attempts, persistq.connect("a.db").settings.max_attempts) == (3, 9)


def test_the_url_wins_over_the_file() -> None:
    assert Settings.load(queue_db_file="a.db").database == "a.db"
    assert Settings.load(queue_db_file="a.db", queue_db_url="sqlite:///b.db").database == "sqlite:///b.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_ATTEMPTS", "lots-S3NT1NEL"),
        ("MAX_ATTEMPTS", "0"),
        ("MAX_ATTEMPTS", "2.5"),
        ("TIMEOUT_SECONDS", "soon-S3NT1NEL"),
        ("TIMEOUT_SECONDS", "0"),
        ("TIMEOUT_SECONDS", "-1"),
        ("TIMEOUT_SECONDS", "nan"),
        ("TIMEOUT_SECONDS", "inf"),
        ("INTERVAL_TIME", "-0.1"),
        ("QUEUE_DURABILITY", "S3NT1NEL"),
        ("QUEUE_CONCURRENCY", "1001"),
        ("QUEUE_BACKOFF_SECONDS", "-1"),
        ("QUEUE_BACKOFF_MAX_SECONDS", "inf"),
        ("QUEUE_WORKER_BATCH_SIZE", "0"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_bad_value_is_refused_by_its_variable_s_name(
    name: str, value: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "file":
        env_file(f"{name}={value}\n")
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as refusal:
        Settings.load()
    assert name in str(refusal.value)
    assert "S3NT1NEL" not in str(refusal.value)


def test_every_bad_value_is_named_at_once() -> None:
    env_file("MAX_ATTEMPTS=x\nTIMEOUT_SECONDS=y\n")
    with pytest.raises(ConfigError, match=r"(?s)MAX_ATTEMPTS.*TIMEOUT_SECONDS"):
        Settings.load()


def test_a_file_that_is_no_text_is_named() -> None:
    Path(".env").write_bytes(b"MAX_ATTEMPTS=\xff\xfe\n")
    with pytest.raises(ConfigError, match=r"\.env"):
        Settings.load()


def test_a_misspelt_override_is_refused() -> None:
    with pytest.raises((ConfigError, TypeError), match="timeout_secs"):
        persistq.connect("queue.db", timeout_secs=5)


def test_names_that_mean_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    env_file("QUEUE_DB_FIEL=x\nOTHER=1\nQUEUE_TASK=t\n")
    monkeypatch.setenv("QUEUE_TIMEOUT_SECONDS", "5")
    assert Settings.unknown() == ["QUEUE_DB_FIEL", "QUEUE_TIMEOUT_SECONDS"]


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.max_attempts = 1


def test_each_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    env_file("MAX_ATTEMPTS=4\nINTERVAL_TIME=2\n")
    monkeypatch.setenv("INTERVAL_TIME", "3")
    rows = {row.name: row for row in Settings.load().sources()}
    assert set(rows) == {name.upper() for name in Settings.model_fields}
    assert (rows["MAX_ATTEMPTS"].value, rows["MAX_ATTEMPTS"].source) == (4, ".env")
    assert (rows["INTERVAL_TIME"].value, rows["INTERVAL_TIME"].source) == (3, "environment")
    assert (rows["TIMEOUT_SECONDS"].value, rows["TIMEOUT_SECONDS"].source) == (60, "default")


@pytest.mark.parametrize("name", ["QUEUE_DB_URL", "QUEUE_DB_FILE"])
def test_a_password_is_masked_whichever_variable_holds_the_url(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "postgresql://me:S3NT1NEL@db/jobs")
    assert "S3NT1NEL" not in str(Settings.load().sources())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:S3NT1NEL@db/jobs",
        "postgresql://me:S3NT1NEL@db:5432/jobs?sslmode=require",
        "postgresql://db/jobs?user=me&password=S3NT1NEL",
        "postgresql://me:p@S3NT1NEL@db/jobs",
        "postgresql://me:S3NT1NEL?more@db/jobs",
        "postgresql://me:half/S3NT1NEL@db/jobs",
        "postgresql://:S3NT1NEL@db/jobs",
        "postgresql+psycopg://me:S3NT1NEL@/jobs",
        "mysql://me:S3NT1NEL#x@db/jobs",
    ],
)
def test_a_masked_url_keeps_its_secret(url: str) -> None:
    masked = mask_url(url)
    assert "S3NT1NEL" not in masked
    assert masked.startswith(url.partition("://")[0] + "://")


@pytest.mark.parametrize("path", ["queue.db", "/var/lib/q ueue.db", "sqlite:///queue.db", "a@b.db", "what?.db"])
def test_what_holds_no_secret_is_shown_as_it_is(path: str) -> None:
    assert mask_url(path) == path


def test_the_example_shows_each_variable_with_its_default() -> None:
    example = Settings.example()
    for name, value in {**SEED_DEFAULTS, **OUR_DEFAULTS}.items():
        shown = "" if value is None else value
        assert any(line.startswith(f"#{name.upper()}={shown}") for line in example.splitlines()), name


def test_the_example_uncommented_is_a_file_that_changes_nothing() -> None:
    before = Settings.load()
    lines = Settings.example().splitlines()
    env_file("\n".join(line.removeprefix("#") for line in lines if line.startswith("#") and not line.startswith("# ")))
    assert Settings.load() == before
    assert Settings.unknown() == []


@pytest.mark.parametrize(("text", "modules"), [(None, []), ("a", ["a"]), (" a.b , c,, ", ["a.b", "c"])])
def test_the_app_is_a_list_of_modules(text: str | None, modules: list[str]) -> None:
    assert Settings.load(queue_app=text).apps == modules
