"""Mutation: alter the code in one small place at a time and see whether a test notices: ``make mutation``.

mutmut makes the mutants and forks a process for each, in a copy of the tree below ``.mutation/``. What it found out
stays there, so a run that was ended goes on where it was; ``--again`` retries what survived, after a test was written.
docs/reliability.md has the figures and says what the survivors are.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / ".mutation"
MUTMUT = Path(sys.executable).with_name("mutmut")
SERVERS = ("postgresql", "mariadb", "redis", "valkey")
SLOW = ("costs_the_same", "within_one_moment", "flipped", "zeroblob")
"""Parts of the names of tests that take seconds and kill nothing that the others spare."""

TARGETS = {
    "persistq/states.py": ("unit/test_states.py",),
    "persistq/retry.py": ("unit/test_retry.py",),
    "persistq/storage/jobs.py": (
        "contract/test_look.py", "contract/test_operate.py", "contract/test_operate_transfer.py",
        "contract/test_search.py",
        "contract/test_settle.py::test_a_lost_lease_writes_nothing",
        "contract/test_settle.py::test_a_deleted_job_is_not_found",
        "contract/test_settle.py::test_a_completed_job_is_done_with_its_result",
        "contract/test_recover.py::test_an_expired_lease_is_taken_back_at_once_and_for_anyone",
        "contract/test_history.py::test_it_goes_with_the_job",
        "contract/test_bulk.py::test_what_came_or_failed_after_the_preview_is_untouched",
        "contract/test_bulk.py::test_delete_takes_one_job_with_its_history",
    ),
    "persistq/storage/leases.py": (
        "contract/test_shard_coordinator.py", "contract/test_shard_storage.py",
        "unit/test_sqlite.py::test_a_look_for_a_free_tube_waits_for_no_writer",
    ),
    "persistq/batch/names.py": ("unit/test_batch_names.py", "unit/test_batch_turbo.py"),
    "persistq/batch/recovery.py": ("unit/test_batch_recovery.py", "unit/test_batch_flow.py"),
    "persistq/batch/spool.py": ("unit/test_batch_spool.py", "unit/test_batch_flow.py"),
    "persistq/batch/file.py": (
        "unit/test_batch_file.py", "unit/test_batch_damage.py", "unit/test_batch_turbo.py",
    ),
    "persistq/storage/exchange.py": (
        "contract/test_claim.py", "contract/test_settle.py", "contract/test_recover.py", "contract/test_history.py",
        "contract/test_operate.py::test_each_act_in_each_status",
        "contract/test_operate.py::test_a_crash_is_recorded_with_its_traceback_and_what_comes_next",
        "contract/test_operate.py::test_a_crash_by_word_backs_off_and_at_the_limit_fails",
        "contract/test_bulk.py::test_release_takes_a_job_back_without_costing_an_attempt",
        "contract/test_timings.py::test_a_lease_that_was_lost_counts_for_nobody",
    ),
}  # fmt: skip
"""What is mutated, and the tests below ``tests/`` that are to notice: quick ones, for hundreds of mutants wait."""

AT_IMPORT = {"persistq/states.py"}
"""What calls its own functions as it is imported: each of its mutants needs a process that has not done so yet."""


class Run:
    """The mutants of one file."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._home = PLACE / target.removesuffix(".py").replace("/", "-")

    def go(self, servers: list[str], also: list[str], again: bool, processes: int, ends: float) -> bool:
        """Try the mutants; return whether there was time for all."""
        self._copy()
        names = list(self._survivors()) if again else []
        if again and not names:
            return True
        unwanted = " and ".join(f"not {part}" for part in (*SERVERS, *SLOW) if part not in servers)
        surroundings = os.environ | {
            # Not in the configuration, for there each change has mutmut forget everything.
            "PYTEST_ADDOPTS": " ".join([f"-k '{unwanted}'", *(f"tests/{test}" for test in also)]),
            # So that processes which a test starts run the mutant as well.
            "PYTHONPATH": str(self._home / "mutants"),
        }
        with open(self._home / "log", "wb") as log:
            command = [MUTMUT, "run", "--max-children", str(processes), *names]
            process = subprocess.Popen(command, cwd=self._home, env=surroundings, stdout=log, stderr=log)
            try:
                process.wait(max(0, ends - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.send_signal(signal.SIGINT)  # it puts down what it knows
                process.wait()
                return False
        if process.returncode:
            sys.exit(f"{self._target}: mutmut ended with {process.returncode}; see {self._home / 'log'}")
        if number := self._unanswered():
            sys.exit(f"{self._target}: pytest refused the tests of {number} mutants; then remove {self._home}")
        return True

    def figures(self) -> dict[str, int]:
        """Return how many mutants ended how."""
        if not (self._home / "mutants").is_dir():
            return {}
        self._ask("export-cicd-stats")
        return dict(json.loads((self._home / "mutants/mutmut-cicd-stats.json").read_text()))

    def show(self) -> None:
        """Print what survived."""
        for name in self._survivors():
            print(self._ask("show", name))

    def _unanswered(self) -> int:
        """Return for how many mutants no test could be run, which mutmut takes for a timeout."""
        meta = json.loads((self._home / "mutants" / f"{self._target}.meta").read_text())
        return list(meta["exit_code_by_key"].values()).count(255)

    def _survivors(self) -> Iterator[str]:
        for line in self._ask("results").splitlines():
            name, _, how = line.strip().rpartition(": ")
            if how in ("survived", "no tests", "suspicious"):
                yield name

    def _ask(self, *question: str) -> str:
        return subprocess.run([MUTMUT, *question], cwd=self._home, check=True, capture_output=True, text=True).stdout

    def _copy(self) -> None:
        # Only what is mutated and what tests it: the apps, installed under persistq too, are found where they are.
        for name in ("persistq", "tests"):
            shutil.rmtree(self._home / name, ignore_errors=True)
            shutil.copytree(ROOT / name, self._home / name, ignore=shutil.ignore_patterns("__pycache__"))
        (self._home / "mutants").mkdir(exist_ok=True)  # or Python would remember that nothing can be imported from it
        shutil.copy2(ROOT / "pyproject.toml", self._home)
        plugins = ["no:xdist", "no:cacheprovider"] + ["tests.support.forgetful"] * ("/storage/" in self._target)
        lists = {
            "source_paths": ["persistq"],
            "only_mutate": [self._target],
            "pytest_add_cli_args": [part for plugin in plugins for part in ("-p", plugin)],
            "pytest_add_cli_args_test_selection": [f"tests/{test}" for test in TARGETS[self._target]],
        }
        lines = [f"{name} =\n" + "".join(f"    {value}\n" for value in values) for name, values in lists.items()]
        plain = {
            # The server forks from before any test, so that no cache holds what an unaltered function returned.
            "process_isolation": "forkserver",
            "forkserver_warmup": "none" if self._target in AT_IMPORT else "collect",
            "timeout_multiplier": 5,
            "timeout_constant": 1,
        }
        lines += [f"{name} = {value}\n" for name, value in plain.items()]
        (self._home / "setup.cfg").write_text("[mutmut]\n" + "".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", metavar="FILE", help=f"of {', '.join(TARGETS)}; all")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so long; the next run goes on there")
    parser.add_argument("--again", action="store_true", help="only what survived")
    parser.add_argument("--with", dest="servers", action="append", default=[], choices=SERVERS, help="tests on it too")
    parser.add_argument("--also", action="append", default=[], metavar="TEST", help="this test as well, below tests/")
    parser.add_argument("--processes", type=int, default=1, help="mutants that are tried at once; 1")
    parser.add_argument("--show", action="store_true", help="run nothing, print what survived")
    chosen = parser.parse_args()
    if unknown := set(chosen.files) - set(TARGETS):
        parser.error(f"no mutants are made of {', '.join(unknown)}")
    # A shell that starts this in the background lets it ignore what ends mutmut.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    PLACE.mkdir(exist_ok=True)
    (PLACE / ".gitignore").write_text("*\n")
    ends = time.monotonic() + chosen.minutes * 60
    runs = {target: Run(target) for target in chosen.files or TARGETS}
    for run in runs.values():
        if chosen.show:
            run.show()
        elif not run.go(chosen.servers, chosen.also, chosen.again, chosen.processes, ends):
            break
    print("| file | mutants | killed | timed out | survived | no test | not tried | score |")
    print("| --- |" + " ---: |" * 7)
    for target, run in runs.items():
        if found := run.figures():
            _print_row(target, found)


def _print_row(target: str, found: dict[str, int]) -> None:
    caught = found["killed"] + found["timeout"] + found["segfault"]
    survived = found["survived"] + found["suspicious"]
    tried = caught + survived + found["no_tests"]
    counts = [found["total"], found["killed"], caught - found["killed"], survived, found["no_tests"]]
    cells = [*map(str, counts), str(found["total"] - tried), f"{100 * caught / max(1, tried):.1f} %"]
    print(f"| `{target}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
