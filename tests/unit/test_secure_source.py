"""What no module may do, read from its source: run what data says, read it as markup, open guessable files."""

import ast
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.batches import drain, fill
from support.cli import invoke, ok
from support.jobs import Queue

import persistq
from persistq import maintenance
from persistq.worker import JobSource, Loop, Threads

ROOT = Path(__file__).parents[2]
FOLDERS = ("persistq", "admin", "consumer", "manager", "ops", "producer", "supervisor")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

UNSAFE_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml", "code", "codeop", "imp"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp", "os.execl", "os.execvp",
    "runpy.run_module", "pydoc.locate", "pkgutil.resolve_name",
}  # fmt: skip
IMPORTS_BY_NAME = {
    "persistq/__init__.py", "persistq/sharded/__init__.py", "persistq/storage/statements.py", "admin/admin.py",
    "manager/_alias/py.py",  # each of these: names that stand in the source
    "persistq/tasks.py",  # the modules that the settings or the command line name
}  # fmt: skip
MARKUP = {"HTML", "ANSI"}
"""prompt_toolkit's: what they are given is read as markup or as escape sequences."""


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a name, with the name as it is written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            yield ast.unparse(node.func), node


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def faults(path: Path) -> Iterator[str]:
    """Yield what a module does that none may."""
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    yield from (f"{name} imports {module}" for module in set(imported(path)) & UNSAFE_MODULES)
    for called, node in calls(path):
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if called in UNSAFE_CALLS:
            yield f"{name}:{node.lineno} calls {called}"
        if called.endswith("import_module") and name not in IMPORTS_BY_NAME:
            yield f"{name}:{node.lineno} imports what is named at run time"
        if called.rpartition(".")[2] in MARKUP and not all(isinstance(one, ast.Constant) for one in node.args):
            yield f"{name}:{node.lineno} reads data as markup"
        shell = keywords.get("shell")
        if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
            yield f"{name}:{node.lineno} gives a command to a shell"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/tmp/"):
            yield f"{name}:{node.lineno} names a file in /tmp"


def test_no_module_runs_what_data_says():
    assert len(SOURCES) > 100
    assert [fault for path in SOURCES for fault in faults(path)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from marshal import loads", "import yaml.loader", "eval(text)", "os.system(text)",
        "importlib.import_module(row.task)", "HTML(f'<b>{item}</b>')", "ANSI(item)", "run(text, shell=True)",
        "open('/tmp/queue.lock', 'w')", "tempfile.mktemp()",
    ],
)  # fmt: skip
def test_each_of_these_would_be_found(tmp_path, source):
    path = tmp_path / "module.py"
    path.write_text(source)
    assert list(faults(path)) != []


class Canary:
    """Whoever unpickles it leaves a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


def test_a_pickle_in_every_column_is_only_text(queue: Queue, path: Path, tmp_path: Path):
    """It is looked at, performed, failed, put in a batch, copied out and in; nobody unpickles it."""
    canary = tmp_path / "canary"
    item = pickle.dumps(Canary(canary), protocol=0).decode("ascii")
    persistq.task(name="plain")(lambda text: text)
    queue.enqueue(item, unique_key=item[:60])
    queue.enqueue(item, "other")
    source = JobSource(queue, name="w", queues=(), default_task="plain", concurrency=1)
    assert Loop(source, Threads(1), grace=1, drain=True).run() == 0
    assert {job.result for job in queue.list_jobs("done")} == {item}
    failed = queue.enqueue(item)
    (job,) = queue.exchange("w", limit=1)
    queue.fail(job, item, permanent=True)
    fill(tmp_path / "spool", [item, {"text": item}, item.encode()])
    assert drain(tmp_path / "spool") == [item, {"text": item}, item.encode()]
    maintenance.run_once(queue)
    queue.close()
    for command in (["list-jobs"], ["list-jobs", "--json"], ["show-job", str(failed)], ["db", "export"]):
        ok("--db", str(path), *command)
    assert not canary.exists()
    pickle.loads(item.encode("ascii"))  # it would have sung
    assert canary.exists()


def test_an_unexpected_error_shows_no_locals(monkeypatch: pytest.MonkeyPatch, path: Path):
    def broken(*_: Any, **__: Any) -> None:
        password = "".join(["sen", "tinel"])
        raise RuntimeError(len(password))

    monkeypatch.setattr(persistq.PersistentQSQLAlchemy, "enqueue", broken)
    for options in ([], ["-v"]):
        result = invoke("--db", str(path), *options, "enqueue", "hello")
        assert result.exit_code == 1
        assert "RuntimeError" in result.output
        assert "sentinel" not in result.output
