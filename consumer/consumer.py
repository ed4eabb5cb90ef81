"""``python -m consumer.consumer``: performs jobs until told to stop."""

import argparse
import gc
import logging
import signal
import sys
import warnings
from collections.abc import Sequence

import persistq
from persistq import cleanup, clock, logs, metrics, tasks, tracing
from persistq.worker import JobSource, Loop, Threads

from . import batches, shards, stamp

EXIT_CONFIG = 78
"""EX_CONFIG: a restart will not help; a person has to change something."""

COLLECT_AFTER = 10_000
"""New objects after which Python looks for cycles. With hundreds of jobs in hand its own 700 come so soon that
nothing is found, and the looks were seen to take a fifth of a consumer's time."""

_log = logging.getLogger("persistq.consumer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a consumer and return the process's exit code."""
    settings = None
    try:
        settings = persistq.Settings.load()
        options = _parser(settings).parse_args(arguments)
        logs.configure(as_json=settings.queue_log_format == "json")
        return _consume(settings, options)
    except (persistq.ConfigError, persistq.SchemaMismatch) as error:
        print(error, file=sys.stderr)  # noqa: T201 - supervisord's stderr log
        return EXIT_CONFIG


def _consume(settings: persistq.Settings, options: argparse.Namespace) -> int:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        q = persistq.connect(settings=settings)
    for warning in heard:
        _log.warning("%s", warning.message)
    stamp.register(cleanup.job_root(q))
    shards.register(q)
    gc.set_threshold(COLLECT_AFTER)  # before the modules of tasks, which may know better
    for module in [*settings.apps, *options.app]:
        tasks.load(module)
    gc.freeze()  # what is imported stays: no look has to go through it
    if options.task not in tasks.names():
        raise persistq.ConfigError(f"no task {options.task!r} is registered; known: {', '.join(tasks.names())}")
    if options.shards:
        return shards.consume(q, options)
    if options.batches:
        return batches.consume(q, options)
    source = JobSource(
        q, name=options.name, queues=options.queue, default_task=options.task, concurrency=options.concurrency
    )
    loop = Loop(
        source,
        Threads(options.concurrency),
        grace=settings.queue_grace_seconds,
        drain=options.drain,
        prefetch=settings.queue_prefetch,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    persistq.subscribe(lambda _name, fields: loop.stop() if fields["wish"] == "stop" else None, "worker.told")
    if options.metrics_port:
        metrics.serve(q, options.metrics_port)
    tracing.instrument(q)
    _log.info("%s serves %s", source.consumer, ", ".join(options.queue) or "all queues")
    code = loop.run()
    _log.info("%s leaves with exit code %d", source.consumer, code)
    return code


def _parser(settings: persistq.Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="consumer",
        description="Perform jobs until told to stop. SIGTERM or SIGINT lets running jobs finish for "
        "QUEUE_GRACE_SECONDS and releases the rest; a second one releases them at once.",
        epilog="Exit codes: 0 stopped or drained, 2 usage, 75 too many handlers hang, 78 bad configuration.",
    )
    parser.add_argument("--queue", action="append", default=[], metavar="Q", help="serve this queue (repeatable); all")
    parser.add_argument("--concurrency", type=_positive, default=settings.queue_concurrency, metavar="N",
                        help="jobs performed at once (%(default)s)")  # fmt: skip
    parser.add_argument("--app", action="append", default=[], metavar="MODULE",
                        help="import this module's tasks (repeatable), besides QUEUE_APP")  # fmt: skip
    parser.add_argument("--task", default=settings.queue_task, metavar="NAME",
                        help="task for items that name none (%(default)s)")  # fmt: skip
    parser.add_argument("--name", default=settings.queue_name or clock.default_consumer_name(),
                        help="stable name, for assign-job (%(default)s)")  # fmt: skip
    parser.add_argument("--batches", action="store_true",
                        help="perform the items of batch files in QUEUE_SPOOL_DIR instead")  # fmt: skip
    parser.add_argument("--shards", action="append", default=[], metavar="MODULE",
                        help="perform sharded requests by this module's handlers instead (repeatable)")  # fmt: skip
    parser.add_argument("--metrics-port", type=int, default=0, metavar="PORT",
                        help="show /metrics and /healthz on this port of 127.0.0.1")  # fmt: skip
    parser.add_argument("--drain", action="store_true", help="end when nothing is due, retried or running")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("1 to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
