"""Commands that write. Each asks first, with the count and the first ids; what it does is the operator service's."""

from collections.abc import Callable, Sequence
from typing import Any

import persistq
from persistq import beyond, bulk, spans
from persistq.actions import Preview, Progress
from persistq.text import HIDDEN

from . import completion
from .registry import FILTERS, Given, chosen, command, number
from .session import Busy, Prompt, Question, Session
from .steering import type_command
from .views.audit import EntryPane
from .views.job import JobPane

JOB = ("jobs", "job")
ASK_FOR_COUNT = 20
"""More jobs than this, or all that match, and the number has to be typed."""

_SOME = ("all", *FILTERS, "reason")
_MOST_WORDS = 1_000
_IDS_SHOWN = 12


# Jobs


def _on_jobs(name: str, verb: str, about: str, key: str, *options: str, hint: str) -> None:
    @command(name, about, key, on=JOB, words=(0, _MOST_WORDS), takes="[ID]...", options=(*_SOME, *options), writes=True,
             hint=hint)  # fmt: skip
    def run(s: Session, given: Given) -> None:
        decide(s, verb, given, force=given.has("force") or None)


_on_jobs(
    "resubmit", "resubmit", "give failed or cancelled jobs a new budget of attempts", "R", "force", hint="resubmit"
)
_on_jobs("cancel", "cancel", "call pending or running jobs off", "C", hint="cancel")
_on_jobs("mark-failed", "mark_failed", "give pending or running jobs up", "F", hint="fail")
_on_jobs("release", "release", "take running jobs back from their consumers", "L", hint="release")
_on_jobs("delete-job", "delete", "delete jobs with their history", "D", "force", hint="delete")


@command("assign-job", "reserve jobs for one consumer", "A", on=JOB, words=(0, 2), takes="[ID CONSUMER]",
         options=(*_SOME, "to"), writes=True, hint="assign")  # fmt: skip
def assign(s: Session, given: Given) -> None:
    """Reserve jobs; without a consumer's name, ask for one."""
    if len(given.words) == 1:
        raise persistq.ConfigError("it is: assign-job ID CONSUMER; or assign-job --all --to CONSUMER")
    if given.words:
        decide(s, "assign", Given(given.words[:1], given.options, given.statuses), consumer=given.words[1])
    elif "to" in given.options:
        decide(s, "assign", given, consumer=given.options["to"])
    else:
        targets(s, given)
        s.prompt = Prompt("assign to consumer: ", lambda name: decide(s, "assign", given, consumer=name.strip()),
                          completer=completion.Consumers(), kind="consumer", leave=s.refuse)  # fmt: skip
        completion.learn(s)


@command("edit-job", "change the priority of waiting jobs, or when they run", "E", on=JOB, words=(0, _MOST_WORDS),
         takes="[ID]... --priority N --run-at WHEN", options=(*_SOME, "priority", "run-at"), writes=True,
         hint="edit")  # fmt: skip
def edit(s: Session, given: Given) -> None:
    """Change what was typed; by key, let it be typed."""
    if "priority" not in given.options and "run-at" not in given.options:
        type_command(s, "edit-job --priority ")
        return
    changes: dict[str, Any] = {}
    if "priority" in given.options:
        changes["priority"] = _priority(given)
    if "run-at" in given.options:
        changes["run_at"] = spans.ahead(given.options["run-at"])
    decide(s, "edit", given, **changes)


def _priority(given: Given) -> int:
    try:
        return int(given.options["priority"])
    except ValueError:
        raise persistq.ConfigError("a priority is a whole number") from None


@command("audit resume", "finish a bulk action that was cut off", "R", on=("audit", "entry"), words=(0, 1),
         takes="[NUMBER]", writes=True, hint="resume")  # fmt: skip
def audit_resume(s: Session, given: Given) -> None:
    """Do the rest of a bulk action, within its own bounds."""
    entry = number(given.words[0]) if given.words else _entry(s)
    s.do("looking what is left", lambda _busy: s.q.preview_rest(entry), lambda what: _propose(s, what, strict=True))


def targets(s: Session, given: Given) -> tuple[persistq.JobFilter | None, list[int] | None]:
    """Return which jobs are meant: a filter, or ids.

    Raises:
        ConfigError: none are.
    """
    if given.words and (given.has("all") or given.statuses):
        raise persistq.ConfigError("give ids; or --all, with filters such as --status and --error")
    if given.words:
        return None, [number(word) for word in given.words]
    if given.has("all"):
        return chosen(given), None
    pane = s.pane
    if pane is s.jobs:
        if s.jobs.everything:
            return s.jobs.which, None
        if s.jobs.table.marks:
            return None, sorted(int(str(key)) for key in s.jobs.table.marks)
        if s.jobs.current:
            return None, [s.jobs.current.thing.id]
    if isinstance(pane, JobPane) and pane.job is not None:
        return None, [pane.job.id]
    raise persistq.ConfigError("no job is meant: put the cursor on one, mark some, or give ids")


def decide(s: Session, verb: str, given: Given, **options: Any) -> None:
    """Look which jobs an action would be done to, and ask."""
    which, ids = targets(s, given)
    options["reason"] = given.options.get("reason")
    s.do(
        "looking which jobs these are",
        lambda _busy: s.q.preview(verb, which, ids=ids, **options),
        lambda what: _propose(s, what, strict=which is not None),
    )


def _propose(s: Session, what: Preview, *, strict: bool) -> None:
    """Ask whether to go ahead; ``strict`` lets the number be typed, however small it is."""
    if not what.count:
        gone = f": there is no job {what.missing[0]}" if what.missing else ""
        s.say(f"nothing to {_word(what)}{gone}", "class:warn")
        return
    title = f"{_word(what)} {what.count:,} job{'s' if what.count > 1 else ''}?"
    question = Question(title, tuple(_lines(s, what)), lambda: _carry_out(s, what))
    s.ask(question, count=what.count if strict or what.count > ASK_FOR_COUNT else None)


def _lines(s: Session, what: Preview) -> list[str]:
    more = f" and {what.count - _IDS_SHOWN:,} more" if what.count > _IDS_SHOWN else ""
    lines = [f"in {s.q.dbname}", f"ids {', '.join(map(str, what.ids[:_IDS_SHOWN]))}{more}"]
    lines.append(", ".join(f"{number:,} {status}" for status, number in what.by_status.items()))
    lines += [f"{name}: {value}" for name, value in what.action.to_dict().items()]
    if what.action.reason:
        lines.append(f"reason: {what.action.reason}")
    if what.action.verb == "delete":
        lines.append("with their history; this cannot be undone")
    items = [HIDDEN if s.hides_items else job.item[:200] for job in what.samples]
    lines += [f"  {job.id} {job.status} {job.queue} {item}" for job, item in zip(what.samples, items, strict=True)]
    if what.missing:
        lines.append(f"not there: {', '.join(map(str, what.missing[:_IDS_SHOWN]))}")
    return lines


def _carry_out(s: Session, what: Preview) -> None:
    s.do(_word(what), lambda busy: _work(s, what, busy), lambda ended: _report(s, what, *ended))


def _work(s: Session, what: Preview, busy: Busy) -> tuple[Progress, str, persistq.PersistQError | None]:
    """Carry an action out, in the hand's thread; return how far it came, the first refusal, what cut it off."""
    progress, refusal = what.so_far or Progress(operation=0), ""
    busy.total = what.count
    try:
        for progress in bulk.carry_out(s.q, what):
            busy.place = progress.place
            refusal = refusal or next((one.why for one in progress.refusals), "")
            s.post(lambda: None)  # which draws the progress
            if busy.stop.is_set():
                break
    except persistq.PersistQError as error:
        return progress, refusal, error
    return progress, refusal, None


def _report(s: Session, what: Preview, end: Progress, refusal: str, error: persistq.PersistQError | None) -> None:
    s.jobs.unmark()
    words = f"{_word(what)}: {end.changed:,} changed"
    if end.refused:
        words += f", {end.refused:,} left as they are: {refusal}"
    if error is None and end.over:
        s.say(words, "class:warn" if end.refused else "class:good")
        return
    rest = f"; :audit resume {end.operation} does the rest" if end.operation else ""
    s.say(f"{words}; {error or 'stopped'}{rest}", "class:bad" if error else "class:warn")


def _word(what: Preview) -> str:
    return what.action.verb.replace("_", "-")


def _entry(s: Session) -> int:
    if s.current == "audit":
        row = s.panes["audit"].current  # type: ignore[attr-defined]
        if row is not None:
            return int(row.key)
    pane = s.panes["entry"]
    if s.current == "entry" and isinstance(pane, EntryPane) and pane.number is not None:
        return pane.number
    raise persistq.ConfigError("put the cursor on a decision, or give its number")


@command("enqueue", "add a job", takes="ITEM", words=(1, 1), options=("queue", "task", "priority"), writes=True)
def enqueue(s: Session, given: Given) -> None:
    """Add one job."""
    options: dict[str, Any] = {name: given.options[name] for name in ("queue", "task") if name in given.options}
    if "priority" in given.options:
        options["priority"] = _priority(given)
    _simple(
        s, "enqueue a job?", [f"item: {given.words[0]}", *(f"{name}: {value}" for name, value in options.items())],
        lambda: s.q.enqueue(given.words[0], **options), lambda job_id: f"job {job_id} is enqueued",
    )  # fmt: skip


@command(
    "purge", "delete old jobs that are over", takes="--older-than 7d", options=("older-than", "status"), writes=True
)
def purge(s: Session, given: Given) -> None:
    """Delete the jobs that ended so long ago."""
    if "older-than" not in given.options:
        raise persistq.ConfigError("give --older-than, such as 7d")
    age = spans.seconds(given.options["older-than"])
    ended = persistq.JobStatus.parse(given.statuses[0] if given.statuses else "done")
    _simple(
        s, f"delete the {ended} jobs that ended more than {given.options['older-than']} ago?", [],
        lambda: s.q.purge(age, ended), lambda gone: f"purge: {gone:,} deleted",
    )  # fmt: skip


# Queues


@command("queues pause", "pause a queue: nobody claims from it", words=(1, 1), takes="QUEUE", options=("reason",),
         writes=True)  # fmt: skip
def pause(s: Session, given: Given) -> None:
    """Pause a queue."""
    _pause(s, given.words[0], given.options.get("reason"), paused=True)


@command("queues resume", "end a pause", words=(1, 1), takes="QUEUE", options=("reason",), writes=True)
def resume(s: Session, given: Given) -> None:
    """End a queue's pause."""
    _pause(s, given.words[0], given.options.get("reason"), paused=False)


@command("pause or resume", "pause the queue, or end its pause", "P", on=("queues",), typed=False, writes=True,
         hint="pause/resume")  # fmt: skip
def toggle_pause(s: Session, _given: Given) -> None:
    """Pause the queue under the cursor, or end its pause."""
    subject = _subject(s, "queues")
    _pause(s, subject.queue, None, paused=not subject.paused)


def _pause(s: Session, queue: str, reason: str | None, *, paused: bool) -> None:
    word = "pause" if paused else "resume"
    _simple(
        s, f"{word} queue {queue}?", ["what runs goes on"] if paused else [],
        lambda: s.q.pause(queue, reason) if paused else s.q.resume(queue, reason),
        lambda _none: f"queue {queue} is {'paused' if paused else 'open'}",
    )  # fmt: skip


# Consumers


def _on_consumers(word: str, wish: str | None, about: str) -> None:
    @command(f"consumers {word}", about, words=(1, 1), takes="CONSUMER", options=("reason",), writes=True)
    def run(s: Session, given: Given) -> None:
        _tell(s, given.words[0], word, wish, given.options.get("reason"))


_on_consumers("quiet", "quiet", "let consumers finish what they have and claim no more")
_on_consumers("resume", None, "let consumers claim again")
_on_consumers("stop", "stop", "let consumers finish and end")


@command("quiet or resume", "let the consumer claim no more, or claim again", "Q", on=("consumers",), typed=False,
         writes=True, hint="quiet/resume")  # fmt: skip
def toggle_quiet(s: Session, _given: Given) -> None:
    """Quiet the consumer under the cursor, or let it claim again."""
    info: persistq.ConsumerInfo = _subject(s, "consumers")
    _tell(s, info.id, "resume" if info.wish else "quiet", None if info.wish else "quiet", None)


@command("stop", "let the consumer finish and end", "T", on=("consumers",), typed=False, writes=True, hint="stop")
def stop(s: Session, _given: Given) -> None:
    """Stop the consumer under the cursor."""
    _tell(s, _subject(s, "consumers").id, "stop", "stop", None)


def _tell(s: Session, consumer: str, word: str, wish: str | None, reason: str | None) -> None:
    _simple(
        s, f"{word} consumer {consumer}?", ["a supervisor starts it anew"] if wish == "stop" else [],
        lambda: s.q.tell_consumer(consumer, wish, reason),
        lambda told: f"{word}: {len(told):,} told; they read it within seconds",
    )  # fmt: skip


@command("consumers prune", "take the lost ones off the list", "X", on=("consumers",), options=("older-than",),
         writes=True, hint="prune")  # fmt: skip
def prune(s: Session, given: Given) -> None:
    """Forget consumers that have not been seen for long."""
    span = given.options.get("older-than", "1h")
    age = spans.seconds(span)
    _simple(
        s, f"forget the consumers that have not been seen for {span}?", [],
        lambda: s.q.prune_consumers(age), lambda gone: f"prune: {gone:,} forgotten",
    )  # fmt: skip


# Batches and shards


@command("batches recover", "make ready what dead producers and consumers left", "R", on=("batches",), words=(0, 1),
         takes="[QUEUE]", writes=True, hint="recover")  # fmt: skip
def recover(s: Session, given: Given) -> None:
    """Recover the batches of a queue."""
    root = s.q.settings.queue_spool_dir
    queue = given.words[0] if given.words else _subject(s, "batches")
    _simple(
        s, f"recover the batches of queue {queue}?", [f"in {root}", "the living are never touched"],
        lambda: beyond.recover_batches(s.q, [queue])[queue],
        lambda done: f"recover: {done.ready:,} ready, {done.empty:,} empty, {len(done.invalid):,} put aside",
    )  # fmt: skip


@command("shards release", "take a tube from whoever holds it", "L", on=("shards",), words=(0, 1), takes="[TUBE]",
         writes=True, hint="release")  # fmt: skip
def release_shard(s: Session, given: Given) -> None:
    """Release a tube."""
    tube = given.words[0] if given.words else _subject(s, "shards")
    _simple(
        s, f"release tube {tube}?", ["its holder is refused from then on"], lambda: beyond.release_tube(s.q, tube),
        lambda held: f"tube {tube} is free" if held else f"nobody held tube {tube}",
    )  # fmt: skip


def _subject(s: Session, screen: str) -> Any:
    row = s.panes[screen].current  # type: ignore[attr-defined]
    if s.current != screen or row is None:
        raise persistq.ConfigError(f"put the cursor on a row of {screen}")
    return row.thing


def _simple(
    s: Session, title: str, lines: Sequence[str], work: Callable[[], Any], told: Callable[[Any], str]
) -> None:  # fmt: skip
    """Ask, do it, and tell what came of it."""

    def yes() -> None:
        s.do(title.rstrip("?"), lambda _busy: work(), lambda result: s.say(told(result), "class:good"))

    s.ask(Question(title, (f"in {s.q.dbname}", *lines), yes))
