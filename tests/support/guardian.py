"""Runs a server for as long as the one who started it lives: ``python guardian.py FOLDER UID SIGNAL COMMAND...``.

Signal numbers that come on stdin, one a line, are passed on. Stdin's end, which comes however its writer
dies, stops the server by SIGNAL and removes its folder. The server's end is the guardian's.
Nothing is imported that takes time.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

PATIENCE = 20.0
"""Seconds that a server may take to stop before it is killed."""


def main() -> None:
    folder, owner, stop, *command = sys.argv[1:]
    user = int(owner)
    drop = {} if user == os.geteuid() else {"user": user, "group": 65534, "extra_groups": []}
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, **drop)
    print(server.pid, flush=True)
    orphaned = threading.Event()
    threading.Thread(target=_obey, args=(server, int(stop), orphaned), daemon=True).start()
    server.wait()
    if orphaned.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def _obey(server: "subprocess.Popen[bytes]", stop: int, orphaned: threading.Event) -> None:
    for line in sys.stdin:
        server.send_signal(int(line))
    orphaned.set()
    threading.Timer(PATIENCE, server.kill).start()
    server.send_signal(stop)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # what is ignored here would be ignored by the server as well
    main()
