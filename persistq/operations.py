"""Operations: what a person decides about jobs, queues and consumers, and the log of it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import Any

from . import bulk, codec
from .actions import Action, AuditEntry, ErrorGroup, Preview, Progress
from .clock import Seconds
from .door import Door
from .errors import ConfigError, IllegalTransition, JobNotFound, ReadOnly
from .explain import Explanation, explain
from .model import Found, Job, JobFilter, JobStatus, Minute, check_span
from .storage import arrivals, audit, consumers, exchange, jobs, operate, queues, search, stats, tallies, timings

MOST_IDS = 100_000
"""Ids that one bulk action takes; a filter takes any number of jobs."""

MOST_FAILURES = stats.MOST_FAILURES
"""Failures that ``errors`` looks at."""

SPAN = search.SPAN
"""Jobs that ``search`` looks through at once for what no index finds."""


class Operations(Door):
    """The methods under "Deciding" in the interface, where their promises are, and those of the operator service.

    Each decision leaves a line in the audit log, written in the transaction that carries it out.
    """

    # One job

    def resubmit(self, job_id: int, *, force: bool = False, reason: str | None = None) -> Job:
        return self._act(job_id, Action.of("resubmit", force=force, reason=reason))

    def cancel(self, job_id: int, reason: str | None = None) -> Job:
        return self._act(job_id, Action.of("cancel", reason=reason))

    def mark_failed(self, job_id: int, reason: str | None = None) -> Job:
        return self._act(job_id, Action.of("mark_failed", reason=reason))

    def assign_job(self, job_id: int, consumer: str, reason: str | None = None) -> Job:
        return self._act(job_id, Action.of("assign", consumer=consumer, reason=reason))

    def release_job(self, job_id: int, reason: str | None = None) -> Job:
        """Take a running job back from whoever holds it: it is pending at once, and the delivery does not count.

        Raises:
            JobNotFound, IllegalTransition
        """
        return self._act(job_id, Action.of("release", reason=reason))

    def edit_job(
        self, job_id: int, *, priority: int | None = None, run_at: datetime | None = None, reason: str | None = None
    ) -> Job:
        """Change the priority of a pending job, or the time before which it does not run.

        Raises:
            JobNotFound, IllegalTransition
            ConfigError: neither is given, or it is not usable.
        """
        return self._act(job_id, Action.of("edit", priority=priority, run_at=run_at, reason=reason))

    def delete_job(self, job_id: int, *, force: bool = False, reason: str | None = None) -> Job:
        """Delete one job with its history, and return what it was; a running one only by ``force``.

        Raises:
            JobNotFound, IllegalTransition
        """
        return self._act(job_id, Action.of("delete", force=force, reason=reason))

    def update_status(self, job_id: int, status: str) -> Job:
        codec.check_id(job_id)
        now = self.database.now()
        return self._write(
            "update_status",
            lambda conn: operate.update_status(conn, now, self.actor, job_id, word=status, backoff=self._backoff),
            job=job_id,
        )

    # Many jobs: preview, begin, advance until it is over. ``bulk.carry_out`` does the last two.

    def preview(
        self,
        /,
        verb: str,
        which: JobFilter | None = None,
        *,
        ids: Iterable[int] | None = None,
        unchanged_for: Seconds | None = None,
        **options: Any,
    ) -> Preview:
        """Return the jobs that an action would be done to, of a filter or of ``ids``; nothing is changed.

        The verbs are ``resubmit``, ``cancel``, ``mark_failed``, ``assign``, ``release``, ``edit`` and ``delete``;
        ``options`` are those of the methods for one job. Without a status, ``resubmit`` means failed jobs.
        ``unchanged_for`` narrows a filter to the jobs that neither began nor ended within that span.

        Raises:
            ConfigError: the action or an option is not usable, or there are too many ids.
        """
        action = Action.of(verb, **options)
        given = None if ids is None else [_storable_id(one) for one in ids]
        if given is not None and (which is not None or unchanged_for is not None or len(given) > MOST_IDS):
            raise ConfigError(f"give a filter, or at most {MOST_IDS:,} ids")
        now = self.database.now()
        since = None if unchanged_for is None else now.after(-check_span("unchanged_for", unchanged_for))
        return self._read("preview", lambda conn: operate.preview(conn, now, action, which, given, since))

    def preview_rest(self, operation: int) -> Preview:
        """Return what is left of a bulk action that was cut off, within the bounds of its own preview.

        Raises:
            JobNotFound: the audit log has no bulk action of that number.
            IllegalTransition: it was finished.
        """
        return self._read("preview", lambda conn: operate.rest(conn, codec.check_id(operation)))

    def begin_bulk(self, what: Preview, *, expected: int | None = None) -> Progress:
        """Write down that a bulk action begins, or goes on; no job is changed yet.

        Raises:
            IllegalTransition: there are not as many jobs as were ``expected``.
            ReadOnly: the connection only looks, whatever there is to do.
        """
        if self.read_only:
            raise ReadOnly("begin_bulk needs a queue that was connected without read_only")
        if expected is not None and what.count != expected:
            raise IllegalTransition(f"{what.count:,} jobs match now, where {expected:,} were expected; look again")
        if what.so_far is not None:
            return what.so_far
        if not what.count:
            return Progress(operation=0, over=True)
        now = self.database.now()
        operation = self._write("begin_bulk", lambda conn: operate.begin(conn, now, self.actor, what))
        return Progress(operation=operation)

    def advance_bulk(self, what: Preview, so_far: Progress, *, size: int = jobs.CHUNK) -> Progress:
        """Do it to the next ``size`` jobs in one transaction; what changed since the preview is left as it is."""
        if so_far.over:
            return so_far
        now = self.database.now()
        return self._write(
            "advance_bulk",
            lambda conn: operate.advance(conn, now, self.actor, what, so_far, size),
            verb_done=what.action.verb,
        )

    def delete_jobs(self, which: JobFilter | None = None, *, force: bool = False) -> int:
        return self._to_the_end(self.preview("delete", which, force=force))

    def purge(self, older_than: Seconds, status: str = "done") -> int:
        return self._to_the_end(bulk.preview_purge(self, older_than, status))

    def retire(self) -> int:
        """Delete the done jobs that are older than the settings keep them; return how many.

        Maintenance does this all day. It was decided by the settings, so the audit log does not hear of it.
        """
        keep = self.settings.queue_retention_seconds
        if not keep:
            return 0
        before = self.database.now().after(-keep)
        chunks = bulk.in_chunks(
            lambda size: self._write("retire", lambda conn: jobs.delete_done(conn, before=before, size=size))
        )
        return sum(takewhile(bool, chunks))

    # Queues and consumers

    def pause(self, queue: str, reason: str | None = None) -> None:
        self._set_paused(queue, reason, paused=True)

    def resume(self, queue: str, reason: str | None = None) -> None:
        self._set_paused(queue, reason, paused=False)

    def tell_consumer(self, consumer: str, wish: str | None, reason: str | None = None) -> list[str]:
        """Ask consumers, by id or name, to be ``quiet`` (claim no more) or to ``stop``; None takes it back.

        They read it with their next sign of life, within seconds. A supervisor starts what has stopped anew.
        Return the ids of those that were told.

        Raises:
            ConfigError: there is no such wish.
            JobNotFound: no consumer has the id or name.
        """
        if wish not in (None, "quiet", "stop"):
            raise ConfigError(f"a consumer can be told to be quiet or to stop, not {wish!r:.40}")
        name = codec.check_text("a consumer", consumer, 255)
        now = self.database.now()

        def work(conn: Any) -> list[str]:
            told = consumers.tell(conn, name, wish)
            if told:
                scope = {"consumer": name, "told": told}
                audit.record(conn, now, self.actor, f"consumer_{wish or 'resume'}", scope, {}, reason=reason)
            return told

        told = self._write("tell_consumer", work)
        if not told:
            raise JobNotFound(f"nor a consumer {name!r:.80}; 'persistq consumers list' shows who is there")
        return told

    def bury(self, host: str, pid: int) -> int:
        """Take back at once what a consumer that is certainly dead held, and return how many jobs that were.

        For who has seen the process end, such as its supervisor: its jobs come back as after the end of
        their leases, with the attempt counted.
        """
        now = self.database.now()
        # After a jump of the clock other leases may look ended that are not; then all wait alike.
        calm = self.database.is_calm(self.settings.timeout_seconds)

        def work(conn: Any) -> int:
            dead = consumers.of_process(conn, host, pid)
            ended = operate.end_leases(conn, now, dead)
            for one in dead:
                consumers.remove(conn, one)
            if not ended:
                return 0
            audit.record(
                conn, now, self.actor, "bury", {"host": host, "pid": pid, "consumers": dead}, {"changed": ended}
            )
            while calm and exchange.recover(conn, now, self.actor):
                continue
            return ended

        return self._write("bury", work)

    def note(self, action: str, scope: dict[str, Any], reason: str | None = None) -> None:
        """Write into the audit log what happened outside the queue, such as a process that does not start."""
        now = self.database.now()
        line = codec.check_name("an action", action)
        self._write("note", lambda conn: audit.record(conn, now, self.actor, line, scope, {}, reason=reason))

    def prune_consumers(self, older_than: Seconds) -> int:
        """Forget the consumers that have not been seen for ``older_than``; return how many."""
        before = self.database.now().after(-check_span("older_than", older_than))
        now = self.database.now()

        def work(conn: Any) -> int:
            pruned = consumers.prune(conn, before)
            if pruned:
                audit.record(
                    conn, now, self.actor, "consumers_prune", {"before": before.isoformat()}, {"pruned": pruned}
                )
            return pruned

        return self._write("prune_consumers", work)

    # The log of it

    def audit(
        self,
        *,
        limit: int = 100,
        before: int | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
    ) -> list[AuditEntry]:
        """Return what was decided, newest first: by whom, from where, about which jobs, and what came of it.

        ``before`` is the last number seen, for the next page; ``actor`` is a part of the name.
        """
        return self._read(
            "audit",
            lambda conn: audit.find(
                conn, limit=codec.check_int("limit", limit), before=before, actor=actor, action=action, since=since
            ),
        )

    # Looking, with an operator's eyes

    def search(
        self,
        which: JobFilter | None = None,
        *,
        limit: int = 100,
        newest: bool = False,
        after: int = 0,
        before: int | None = None,
        lasting: Seconds = 0,
    ) -> Found:
        """Return a page of jobs as ``list_jobs`` has them, and how far was looked for it.

        For what no index finds, such as a part of an item, the next ``SPAN`` jobs are looked through and no more, so
        that it never takes long; with ``lasting``, as many again until the page is full or that time is over.
        The answer's ``edge`` is the ``after``, or with ``newest`` the ``before``, to go on from.

        Raises:
            ConfigError: the limit is not at least 1, or another bound is not usable.
        """
        limit, after, before = codec.check_page(limit, after, before, least=1)
        end = self.clock.monotonic() + check_span("lasting", lasting)
        found: list[Job] = []
        while True:
            page = partial(
                search.page, which=which or JobFilter(), after=after, before=before, newest=newest,
                limit=limit - len(found),
            )  # fmt: skip
            seen = self._read("search", page)
            found += seen.jobs
            if seen.edge is None or len(found) == limit or self.clock.monotonic() >= end:
                return replace(seen, jobs=found)
            after, before = (after, seen.edge) if newest else (seen.edge, before)

    def explain(self, job_id: int) -> Explanation:
        """Return why a job does not run: the blocker, and what would stand in the way after it.

        Raises:
            JobNotFound: no job has the id.
        """
        codec.check_id(job_id)
        now, wall = self.database.now(), self.clock.now()
        return explain(self._read("explain", lambda conn: stats.facts(conn, now, wall, job_id)))

    def errors(self, which: JobFilter | None = None) -> tuple[list[ErrorGroup], bool]:
        """Return failures that look alike in groups, the largest first, and whether older ones were left out.

        The newest ``MOST_FAILURES`` are looked at, among the newest ``SPAN`` jobs of the filter's statuses. Without a
        status, failed jobs are meant.
        """
        wanted = which or JobFilter()
        if not wanted.status and not wanted.crashed:
            wanted = replace(wanted, status=(JobStatus.FAILED,))
        return self._read("errors", lambda conn: stats.errors(conn, wanted))

    def throughput(self, minutes: int = 60) -> list[Minute]:
        """Return how many attempts ended in each of the last ``minutes``, oldest first; the last one is not over.

        Raises:
            ConfigError: it is not 1 to 10,080, the minutes of the week that timings are kept.
        """
        self._check_minutes(minutes)
        now = self.database.now()
        return self._read("throughput", lambda conn: timings.per_minute(conn, now, minutes))

    def arrivals(self, minutes: int = 60) -> list[int]:
        """Return how many jobs were enqueued in each of the last ``minutes``, oldest first, as ``throughput`` has them.

        Deleted jobs are not counted. Beyond 1,000 jobs it is an estimate, which costs the same however many there are.

        Raises:
            ConfigError: it is not 1 to 10,080.
        """
        self._check_minutes(minutes)
        now = self.database.now()
        return self._read("arrivals", lambda conn: arrivals.per_minute(conn, now, minutes))

    # Upkeep

    def fold_timings(self) -> None:
        """Make one row of the timings of each past minute, and forget those of more than a week ago."""
        now = self.database.now()
        while self._write("fold_timings", lambda conn: timings.fold(conn, now)):
            continue

    def tally_drift(self) -> dict[tuple[str, str], int]:
        """Return by how much ``counts()`` is off, found by counting every row; empty when it is right."""
        return self._read("tally_drift", tallies.drift)

    def mend_tallies(self) -> None:
        """Set ``counts()`` to what counting every row finds."""
        self._write("mend_tallies", lambda conn: tallies.add(conn, tallies.drift(conn)))

    @staticmethod
    def _check_minutes(minutes: int) -> None:
        if not 1 <= codec.check_int("minutes", minutes) <= timings.KEPT_SECONDS // 60:
            raise ConfigError(f"minutes is 1 to {timings.KEPT_SECONDS // 60:,}, not {minutes}")

    def _act(self, job_id: int, action: Action) -> Job:
        codec.check_id(job_id)
        now = self.database.now()
        return self._write(action.verb, lambda conn: operate.act_on(conn, now, self.actor, job_id, action), job=job_id)

    def _to_the_end(self, what: Preview) -> int:
        return [progress.changed for progress in bulk.carry_out(self, what)][-1]

    def _set_paused(self, queue: str, reason: str | None, *, paused: bool) -> None:
        codec.check_name("queue", queue)
        now = self.database.now()
        action = "queue_pause" if paused else "queue_resume"

        def work(conn: Any) -> None:
            queues.set_paused(conn, now, queue, paused=paused)
            audit.record(conn, now, self.actor, action, {"queue": queue}, {}, reason=reason)

        self._write("pause", work)


def _storable_id(value: int) -> int:
    """Return an id as a database can look it up: one that is larger than any stands for none."""
    try:
        return codec.check_id(value)
    except JobNotFound:
        return -1
