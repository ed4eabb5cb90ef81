"""What huey's consumer imports."""

import os

from common import Handler
from peer_huey import open_huey, tasks

_handler = Handler()
huey = open_huey(str(_handler.folder), os.environ["BENCH_DURABILITY"])
tasks(huey, _handler)
_handler.wait()
