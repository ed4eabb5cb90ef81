"""``python -m persistq.admin.watchdog``: supervisord's event listener.

A consumer that died unexpectedly gives its jobs back at once instead of when their leases end, and a
process that supervisord has given up on leaves a line in the audit log, and an event for whoever listens.
"""

import logging
import re
import socket
import sys
from collections.abc import Iterator
from typing import BinaryIO

import persistq
from persistq import events, logs
from persistq.clock import tries_within

TRIES_SECONDS = 10.0
"""How long one event is tried to be dealt with; after that the leases end by themselves."""

_log = logging.getLogger("persistq.watchdog")
_WORD = re.compile(r"(\w+):(\S*)")


def main() -> int:
    """Deal with supervisord's events until it closes stdin, and return the exit code."""
    try:
        q = persistq.connect(actor="supervisor")
    except persistq.ConfigError as error:
        print(error, file=sys.stderr)
        return 78
    # stdout carries the protocol
    logs.configure(stream=sys.stderr, as_json=q.settings.queue_log_format == "json")
    for name, process in heard(sys.stdin.buffer, sys.stdout.buffer):
        for last in tries_within(TRIES_SECONDS):
            try:
                deal_with(q, name, process)
                break
            except (persistq.PersistQError, OSError) as error:
                if last:
                    _log.error("%s of %s: %s", name, process.get("processname"), error)
    return 0


def heard(stdin: BinaryIO, stdout: BinaryIO) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each event's name and payload; it is acknowledged when the next one is asked for."""
    while True:
        stdout.write(b"READY\n")
        stdout.flush()
        header = dict(_WORD.findall(stdin.readline().decode()))
        if not header:
            return
        payload = stdin.read(int(header["len"])).decode(errors="replace")
        yield header["eventname"], dict(_WORD.findall(payload.partition("\n")[0]))
        stdout.write(b"RESULT 2\nOK")
        stdout.flush()


def deal_with(q: "persistq.PersistentQSQLAlchemy", name: str, process: dict[str, str]) -> None:
    """Do what one event asks for."""
    label = f"{process.get('groupname')}:{process.get('processname')}"
    if name == "PROCESS_STATE_EXITED" and process.get("expected") == "0":
        back = q.bury(socket.gethostname(), int(process["pid"]))
        _log.warning("%s (pid %s) died; %d jobs were taken back", label, process["pid"], back)
    elif name == "PROCESS_STATE_FATAL":
        q.note("process_fatal", {"process": label})
        events.emit("supervisor.fatal", process=label)
        _log.error("%s does not start, and supervisord has given it up; see its log", label)


if __name__ == "__main__":
    sys.exit(main())
