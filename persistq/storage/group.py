"""Group: callers of one moment share a commit, and with it one wait for the disk."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from ..errors import OutcomeUnknown
from .rows import Run


class Call:
    """One caller's work, and what became of it."""

    __slots__ = ("adds_jobs", "error", "gate", "leads", "one", "over", "result", "work")

    def __init__(self, work: Callable[[Connection], Any], *, adds_jobs: bool, one: Run | None) -> None:
        self.work = work
        self.adds_jobs = adds_jobs
        #: The job that it adds, when that is all it does; its result is then the list of that job's id.
        self.one = one
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = False
        #: It has to run the next group.
        self.leads = False
        self.gate: threading.Lock | None = None

    def outcome(self) -> Any:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


class Group:
    """Runs calls in groups: while one is being committed, the next gathers.

    The first caller to come runs the group that it belongs to, then hands that duty to one who has
    come meanwhile: no thread of our own, and a caller on its own pays next to nothing.
    """

    def __init__(self, run: Callable[[Sequence[Call]], None]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._waiting: list[Call] = []
        self._led = False

    def call(self, work: Callable[[Connection], Any], *, adds_jobs: bool, one: Run | None = None) -> Any:
        """Return what ``work`` did once its group is committed."""
        call = Call(work, adds_jobs=adds_jobs, one=one)
        try:
            with self._lock:
                self._waiting.append(call)
                if self._led:
                    call.gate = threading.Lock()
                    call.gate.acquire()
                else:
                    self._led = call.leads = True
            if call.gate is not None:
                call.gate.acquire()  # opened when the call is over, or when it is ours to lead
            if not call.over:
                self._lead(call)
        except BaseException:
            self._withdraw(call)
            raise
        return call.outcome()

    def _lead(self, own: Call) -> None:
        group: list[Call] = []
        try:
            with self._lock:
                group, self._waiting = self._waiting, []
            self._run(group)
        finally:
            with self._lock:
                self._pass_on(own)
            for call in group:
                if not call.over:
                    call.error = call.error or OutcomeUnknown("the thread that wrote for this one was interrupted")
                    call.over = True
                if call is not own and call.gate is not None:
                    call.gate.release()

    def _pass_on(self, own: Call) -> None:
        """Give the lead to whoever has waited longest, if anybody waits; the lock is held."""
        own.leads = False
        successor = self._waiting[0] if self._waiting else None
        self._led = successor is not None
        if successor is not None:
            successor.leads = True
            if successor.gate is not None:
                successor.gate.release()

    def _withdraw(self, call: Call) -> None:
        """Let nobody count on a caller that was interrupted: it will neither lead nor be there for its result."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
            if call.leads:
                self._pass_on(call)

    def forget(self) -> None:
        """Begin anew in a forked child: whoever held the lock or led at that moment is not here."""
        self._lock = threading.Lock()
        self._waiting = []
        self._led = False
